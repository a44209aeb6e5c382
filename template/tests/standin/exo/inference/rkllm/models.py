"""The cards of exo's own RKLLM engine."""

from typing import Any

_CARDS = {
    "qwen2.5-1.5b-rkllm": (28, "Qwen/Qwen2.5-1.5B-Instruct", "Qwen 2.5 1.5B (RKLLM)"),
    "qwen2.5-1.5b-instruct-rkllm": (28, "Qwen/Qwen2.5-1.5B-Instruct", "Qwen 2.5 1.5B Instruct"),
    "qwen2.5-3b-rkllm": (36, "Qwen/Qwen2.5-3B-Instruct", "Qwen 2.5 3B (RKLLM)"),
    "qwen2.5-7b-rkllm": (28, "Qwen/Qwen2.5-7B-Instruct", "Qwen 2.5 7B (RKLLM)"),
    "deepseek-r1-1.5b-rkllm": (28, "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "R1 1.5B (RKLLM)"),
    "phi-3-mini-rkllm": (32, "microsoft/Phi-3-mini-4k-instruct", "Phi-3 Mini (RKLLM)"),
}
RKLLM_MODELS: dict[str, dict[str, Any]] = {
    model_id: {"layers": layers, "repo": {"RKLLMInferenceEngine": repo}}
    for model_id, (layers, repo, _) in _CARDS.items()
}
RKLLM_PRETTY_NAMES = {model_id: pretty for model_id, (_, _, pretty) in _CARDS.items()}
