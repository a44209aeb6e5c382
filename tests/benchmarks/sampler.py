"""What a token costs in the sampler, in microseconds, at a vocabulary of 151,936.

    python tests/benchmarks/sampler.py [--rounds 400]

Run by hand, on a machine that does nothing else, in this repository's environment. `peaked` are
logits as a model gives them, `flat` those of one that knows nothing: the normal distribution times
one. Shown are the least and the median of all rounds; the aim is 150 for either.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "kit"))

import run

VOCABULARY = 151_936  # Qwen's
SETTINGS: dict[str, dict[str, float]] = {
    "greedy": {"temperature": 0.0},
    "temperature": {"temperature": 0.7},
    "top_p 0.95": {"temperature": 0.7, "top_p": 0.95},
    "top_p 0.5": {"temperature": 0.7, "top_p": 0.5},
    "top_k 20, top_p 0.8": {"temperature": 0.7, "top_p": 0.8, "top_k": 20},
    "top_k 1000": {"temperature": 0.7, "top_k": 1000},
    "min_p 0.05": {"temperature": 1.0, "min_p": 0.05},
    "min_p 0.05, top_p 0.95": {"temperature": 1.0, "min_p": 0.05, "top_p": 0.95},
    "penalties, greedy": {"temperature": 0.0, "repetition_penalty": 1.1},
    "penalties, top_p 0.95": {
        "temperature": 0.7,
        "top_p": 0.95,
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.01,
    },
}


def microseconds(call: Callable[[], object], rounds: int) -> tuple[float, float]:
    """The least and the median of so many calls."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times) * 1e6, statistics.median(times) * 1e6


def main(rounds: int) -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as folder:
        run.copy_template(Path(folder) / "template")
        run.render(Path(folder) / "template", Path(folder) / run.PROJECT, "numpy")
        sys.path.insert(0, str(Path(folder) / run.PROJECT))
        sampler: Any = import_module("exo_kit.kit.engine.sampler")
        contract: Any = import_module("exo_kit.kit.contract")
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((1, 1, VOCABULARY)).astype(np.float32)
    peaked = flat * 3
    peaked[..., rng.integers(VOCABULARY, size=30)] += np.linspace(8, 16, 30, dtype=np.float32)
    prompt, scratch = rng.integers(VOCABULARY, size=1000).tolist(), np.empty_like(flat)
    print(f"{'':24}{'peaked':>8}{'median':>8}{'flat':>8}{'median':>8}")
    exp = microseconds(lambda: np.exp(flat, out=scratch), rounds)
    print(f"{'exp() alone, the floor':24}" + "".join(f"{figure:8.0f}" for figure in (*exp, *exp)))
    for name, members in SETTINGS.items():
        figures: list[float] = []
        for logits in (peaked, flat):
            one = sampler.Sampler(contract.Sampling(seed=1, **members), prompt)
            figures += microseconds(lambda one=one, x=logits: one.sample(x), rounds)
        print(f"{name:24}" + "".join(f"{figure:8.0f}" for figure in figures))
    figures = list(microseconds(lambda: sampler.logprob(peaked, 5, 20), rounds))
    print(f"{'logprobs 20, besides':24}" + "".join(f"{figure:8.0f}" for figure in figures))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=400)
    main(parser.parse_args().rounds)
