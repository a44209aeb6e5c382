"""The models that a node knows: exo's own, then those of plugins."""

from typing import Any

from exo.inference.plugin_discovery import discover_models
from exo.inference.shard import Shard


def _card(layers: int, mlx_repo: str) -> dict[str, Any]:
    """Return a card of exo's MLX engine."""
    return {"layers": layers, "repo": {"MLXDynamicShardInferenceEngine": mlx_repo}}


_RKLLM = {
    "qwen2.5-1.5b-rkllm": (28, "Qwen/Qwen2.5-1.5B-Instruct", "Qwen 2.5 1.5B (RKLLM)"),
    "qwen2.5-1.5b-instruct-rkllm": (28, "Qwen/Qwen2.5-1.5B-Instruct", "Qwen 2.5 1.5B Instruct"),
    "qwen2.5-3b-rkllm": (36, "Qwen/Qwen2.5-3B-Instruct", "Qwen 2.5 3B (RKLLM)"),
    "qwen2.5-7b-rkllm": (28, "Qwen/Qwen2.5-7B-Instruct", "Qwen 2.5 7B (RKLLM)"),
    "deepseek-r1-1.5b-rkllm": (28, "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "R1 1.5B (RKLLM)"),
    "phi-3-mini-rkllm": (32, "microsoft/Phi-3-mini-4k-instruct", "Phi-3 Mini (RKLLM)"),
}

model_cards: dict[str, dict[str, Any]] = {
    "llama-3.2-1b": {
        "layers": 16,
        "repo": {
            "MLXDynamicShardInferenceEngine": "mlx-community/Llama-3.2-1B-Instruct-4bit",
            "TinygradDynamicShardInferenceEngine": "unsloth/Llama-3.2-1B-Instruct",
        },
    },
    "llama-3.1-8b": _card(32, "mlx-community/Meta-Llama-3.1-8B-Instruct-4bit"),
    "qwen-2.5-0.5b": _card(24, "mlx-community/Qwen2.5-0.5B-Instruct-4bit"),
    "qwen-2.5-1.5b": _card(28, "mlx-community/Qwen2.5-1.5B-Instruct-4bit"),
    "qwen-2.5-7b": _card(28, "mlx-community/Qwen2.5-7B-Instruct-4bit"),
    "phi-3.5-mini": _card(32, "mlx-community/Phi-3.5-mini-instruct-4bit"),
    "dummy": {"layers": 8, "repo": {"DummyInferenceEngine": "dummy"}},
}
model_cards.update(
    {
        model_id: {"layers": layers, "repo": {"RKLLMInferenceEngine": repo}}
        for model_id, (layers, repo, _) in _RKLLM.items()
    }
)
# A plugin's models module is imported here, while this module is only half made.
model_cards.update(discover_models())

pretty_name = {
    "llama-3.2-1b": "Llama 3.2 1B",
    "llama-3.1-8b": "Llama 3.1 8B",
    "qwen-2.5-0.5b": "Qwen 2.5 0.5B",
    "qwen-2.5-1.5b": "Qwen 2.5 1.5B",
    "qwen-2.5-7b": "Qwen 2.5 7B",
    "phi-3.5-mini": "Phi-3.5 Mini",
    **{model_id: name for model_id, (*_, name) in _RKLLM.items()},
}


def get_repo(model_id: str, inference_engine_classname: str) -> str | None:
    """Return where an engine, named by its class, finds a model."""
    repos: dict[str, str] = model_cards.get(model_id, {}).get("repo", {})
    return repos.get(inference_engine_classname)


def get_pretty_name(model_id: str) -> str | None:
    """Return the name that a person reads."""
    return pretty_name.get(model_id)


def build_base_shard(model_id: str, inference_engine_classname: str) -> Shard | None:
    """Return the first layer of a model, or None where the engine has no repo for it."""
    layers = model_cards.get(model_id, {}).get("layers", 0)
    if layers < 1 or get_repo(model_id, inference_engine_classname) is None:
        return None
    return Shard(model_id, 0, 0, layers)


def build_full_shard(model_id: str, inference_engine_classname: str) -> Shard | None:
    """Return all layers of a model, or None where the engine has no repo for it."""
    base = build_base_shard(model_id, inference_engine_classname)
    return base and Shard(model_id, 0, base.n_layers - 1, base.n_layers)
