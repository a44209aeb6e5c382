"""Writes tests/kit/sampling_reference.py: what transformers' own processors leave of some logits.

    python tests/reference/sampling.py > tests/kit/sampling_reference.py

Run by hand with torch and transformers 5.24. The processors are called in vLLM's order
(vllm/v1/sample/sampler.py): repetition, temperature, min-p, top-k, top-p.
"""

import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

VOCABULARY, SPREADS = 24, (0.3, 1.0, 4.0)  # of the logits; flat, as drawn, peaked
PROMPT = [3, 3, 7, 11, 20]
SETTINGS = [
    {"temperature": 1.0},
    {"temperature": 0.3},
    {"temperature": 1.7},
    {"temperature": 1.0, "top_k": 1},
    {"temperature": 1.0, "top_k": 5},
    {"temperature": 0.7, "top_k": 100},
    {"temperature": 1.0, "top_p": 0.1},
    {"temperature": 0.6, "top_p": 0.9},
    {"temperature": 1.0, "min_p": 0.2},
    {"temperature": 1.0, "repetition_penalty": 1.3},
    {"temperature": 0.9, "top_k": 8, "top_p": 0.8},
    {"temperature": 0.8, "min_p": 0.1, "top_k": 6, "top_p": 0.7, "repetition_penalty": 1.1},
    {"temperature": 1.2, "min_p": 0.05, "top_p": 0.6, "repetition_penalty": 0.7},
]


def probabilities(logits: torch.Tensor, setting: dict[str, float]) -> list[float]:
    """What is left of the logits (V,), as probabilities."""
    chain = []
    if by := setting.get("repetition_penalty"):
        chain.append(RepetitionPenaltyLogitsProcessor(by))
    chain.append(TemperatureLogitsWarper(setting["temperature"]))
    if least := setting.get("min_p"):
        chain.append(MinPLogitsWarper(least))
    if most := setting.get("top_k"):
        chain.append(TopKLogitsWarper(int(most)))
    if mass := setting.get("top_p"):
        chain.append(TopPLogitsWarper(mass))
    scores = logits[None].clone()
    for processor in chain:
        scores = processor(torch.tensor([PROMPT]), scores)
    return torch.softmax(scores[0].double(), -1).tolist()


def text(values: list[float], digits: int) -> str:
    """Numbers as lines of Python's strings."""
    words = [f"{value:.{digits}f}".rstrip("0").rstrip(".") for value in values]
    lines = [" ".join(words[n : n + 8]) for n in range(0, len(words), 8)]
    return "\n".join(f'            "{line} "' for line in lines)


def main() -> None:
    """Write the module."""
    torch.manual_seed(0)
    drawn = torch.randn(VOCABULARY)
    print('"""Written by tests/reference/sampling.py: transformers 5.24\'s own processors."""\n')
    print(f"PROMPT = {PROMPT}")
    print("# Logits, then (Sampling's members, probabilities).\nCASES = [")
    for spread in SPREADS:
        logits = torch.tensor([round(float(value), 3) for value in drawn * spread])
        print(f"    (\n        (\n{text(logits.tolist(), 3)}\n        ),\n        [")
        for setting in SETTINGS:
            members = ", ".join(f'"{name}": {value}' for name, value in setting.items())
            print(f"            (\n                {{{members}}},")
            print("                (")
            print(
                "\n".join(
                    f"        {line}"
                    for line in text(probabilities(logits, setting), 5).split("\n")
                )
            )
            print("                ),\n            ),")
        print("        ],\n    ),")
    print("]")


if __name__ == "__main__":
    main()
