"""Make the logits that the NumPy variant is compared with: transformers, float32, on the CPU.

Run by hand, after a change of cases.py or of kit/llama/random_checkpoint.py, with the folder of a
plugin that is rendered as exo-reference, and names of cases where not all are to be made:

    uv venv reference && uv pip install -p reference torch transformers tokenizers numpy
    reference/bin/python tests/reference/make.py [--to FOLDER] PLUGIN [CASE...]

The data in this folder was made with torch 2.13.0 and transformers 5.23.0, that of yarn and dynamic
rope with 5.24.0.
"""

import argparse
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
import transformers
from cases import CASES, DECODED, PROMPT, Case

HERE = Path(__file__).parent


def logits_of(folder: Path, steps: list[np.ndarray]) -> np.ndarray:
    """Logits [S, V] of these steps of a request, one after the other."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    rows, cache = [], None
    for step in steps:
        out = model(torch.from_numpy(step)[None], past_key_values=cache, use_cache=True)
        rows.append(out.logits[0])
        cache = out.past_key_values
    return torch.cat(rows).numpy()


def make(name: str, case: Case, write_checkpoint, to: Path) -> None:
    """One case's ids [S] and logits [S, V], of a prompt and then of one id at a time.

    single: those of one id at a time alone, where they are others.
    """
    rng = np.random.default_rng(len(name))
    ids = rng.integers(0, case.config["vocab_size"], PROMPT + DECODED)
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), case.config, **case.files)
        steps = [ids[:PROMPT], *np.split(ids[PROMPT:], DECODED)]
        data = {"ids": ids, "logits": logits_of(Path(folder), steps)}
        if case.apart:
            data["single"] = logits_of(Path(folder), np.split(ids, PROMPT + DECODED))
    np.savez(to / f"{name}.npz", **data)
    logits = data["logits"]
    print(f"{name}: {logits.shape}, between {logits.min():.2f} and {logits.max():.2f}")


def main() -> None:
    """Every case, or those that are named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("plugin", type=Path)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--to", type=Path, default=HERE)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(arguments.plugin))
    write_checkpoint = import_module("exo_reference.kit.llama.random_checkpoint").write_checkpoint
    for name in arguments.cases:
        make(name, CASES[name], write_checkpoint, arguments.to)


if __name__ == "__main__":
    main()
