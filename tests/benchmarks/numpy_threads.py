"""Chosen threads of the NumPy variant against fixed ones: idle, and with a program on one core.

Run by hand, in this repository's environment with NumPy, tokenizers and threadpoolctl:

    python tests/benchmarks/numpy_threads.py [--folder path/to/model] [--rounds 5] [--prompt 128]

The contenders take turns in one process, each a prompt and 32 tokens; medians of the rounds. A
ratio is the speed of the measured number over that of the better fixed one. "first" is the round in
which the other program has just come, or gone: the choice is still the old one.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from numpy_variant import SHAPES, layers_of, variant

TOKENS = 32


def contenders() -> dict[str, object]:
    """The measured number, and every fixed one that there is up to four."""
    threads = variant("kit.llama.threads")
    chosen = threads.of_process()
    most = chosen._limit
    fixed = {str(n): threads.Threads(most, chosen._use, n) for n in (1, 2, 4) if n <= most}
    return {"measured": chosen} | fixed


def turn(backend, ids) -> tuple[float, float]:
    """Seconds to the first token, and of one token after it."""
    begun = time.perf_counter()
    backend.step("request", ids)
    first = time.perf_counter() - begun
    for _ in range(TOKENS):
        backend.step("request", ids[:, :1])
    backend.forget("request")
    return first, (time.perf_counter() - begun - first) / TOKENS


@contextmanager
def other_program(core: int) -> Iterator[None]:
    """A program that keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        os.sched_setaffinity(process.pid, {core})
        time.sleep(0.5)
        yield
    finally:
        process.kill()
        process.wait()


def rounds(title: str, backend, ids, count: int) -> None:
    """Turns of all contenders, and how the measured number compares."""
    module = variant("kit.llama.threads")
    all_of_them = contenders()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in all_of_them}
    real = module.of_process
    for _ in range(count + 1):
        for name, threads in all_of_them.items():
            module.of_process = lambda threads=threads: threads
            time.sleep(0.1)  # the threads of the last one still spin
            taken[name].append(turn(backend, ids))
    module.of_process = real
    print(f"{title}: {real()}, load {os.getloadavg()[0]:.1f}")
    for n, what in enumerate(("first token", "decode")):
        median = {k: statistics.median(t[n] for t in v[1:]) for k, v in taken.items()}
        best = min(seconds for name, seconds in median.items() if name != "measured")
        listing = ", ".join(f"{name} {1e3 * seconds:.0f} ms" for name, seconds in median.items())
        late = 1e3 * taken["measured"][0][n]
        print(f"  {what:12} ratio {best / median['measured']:.2f}  {listing}, first {late:.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="a model; random weights without")
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=128, help="its tokens")
    options = parser.parse_args()
    import numpy as np

    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        if options.folder is None:
            write = variant("kit.llama.random_checkpoint").write_checkpoint
            write(folder, SHAPES[options.shape])
        backend = variant("backend").Backend()
        begun = time.perf_counter()
        backend.load(layers_of(folder), folder, None)
        print(f"loaded in {time.perf_counter() - begun:.2f} s")
        ids = np.random.default_rng(0).integers(0, 1000, (1, options.prompt))
        rounds("alone", backend, ids, options.rounds)
        with other_program(max(os.sched_getaffinity(0))):
            rounds("one core busy", backend, ids, options.rounds)
        rounds("alone again", backend, ids, options.rounds)


if __name__ == "__main__":
    main()
