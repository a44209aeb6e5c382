"""Make the logits that the NumPy variant is compared with: transformers, float32, on the CPU.

Run by hand, after a change of cases.py or of kit/llama/random_checkpoint.py:

    uv venv reference && uv pip install -p reference torch transformers tokenizers numpy
    reference/bin/python tests/reference/make.py

The data in this folder was made with torch 2.13.0 and transformers 5.23.0.
"""

import sys
import tempfile
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
import transformers
from cases import CASES, DECODED, PROMPT, Case

HERE = Path(__file__).parent
CHECKPOINT = HERE.parents[1] / "template" / "{{ checkpoint }}"


def logits_of(folder: Path, ids: np.ndarray) -> np.ndarray:
    """Logits [S, V] of a prompt and then of one id at a time."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    steps = [ids[:PROMPT], *np.split(ids[PROMPT:], DECODED)]
    rows, cache = [], None
    for step in steps:
        out = model(torch.from_numpy(step)[None], past_key_values=cache, use_cache=True)
        rows.append(out.logits[0])
        cache = out.past_key_values
    return torch.cat(rows).numpy()


def make(name: str, case: Case, write_checkpoint) -> None:
    """One case's ids [S] and logits [S, V]."""
    rng = np.random.default_rng(len(name))
    ids = rng.integers(0, case.config["vocab_size"], PROMPT + DECODED)
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), case.config, **case.files)
        logits = logits_of(Path(folder), ids)
    np.savez(HERE / f"{name}.npz", ids=ids, logits=logits)
    print(f"{name}: {logits.shape}, between {logits.min():.2f} and {logits.max():.2f}")


def main() -> None:
    """Every case."""
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(CHECKPOINT))
    write_checkpoint = import_module("{{ package }}.kit.llama.random_checkpoint").write_checkpoint
    for path in HERE.glob("*.npz"):
        path.unlink()
    for name, case in CASES.items():
        make(name, case, write_checkpoint)


if __name__ == "__main__":
    main()
