"""The checkpoints whose logits are compared with transformers: one for each option of a config."""

from dataclasses import dataclass, field
from typing import Any

PROMPT, DECODED = 40, 20

_SMALL = {
    "hidden_act": "silu",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 48,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": 0,
}
_CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
_MSCALE = {"beta_fast": 4.0, "beta_slow": 2.0, "mscale": 0.7, "mscale_all_dim": 1.3}
_WINDOW = {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}
_KINDS = ["sliding_attention", "full_attention", "sliding_attention"]


@dataclass(frozen=True)
class Case:
    """A config.json and how the weights are written; apart: one id at a time gives other logits."""

    config: dict[str, Any]
    files: dict[str, Any] = field(default_factory=dict)
    apart: bool = False


def _case(model_type: str, files: dict[str, Any] | None = None, **config: Any) -> Case:
    named = {"model_type": model_type, "architectures": [_CLASSES[model_type]]}
    return Case(_SMALL | named | config, files or {})


CASES = {
    "llama": _case("llama", rope_theta=10000.0, torch_dtype="float32"),
    "llama-transformers-5": _case(
        "llama", rope_parameters={"rope_type": "default", "rope_theta": 777.7}, dtype="float32"
    ),
    "llama-theta": _case("llama", rope_theta=1234567.8),
    "llama-no-theta": _case("llama"),
    "llama-multi-head": _case("llama", num_key_value_heads=4),
    "llama-one-key-head": _case("llama", num_key_value_heads=1),
    "llama-head-dim": _case("llama", head_dim=20),
    "llama-tied": _case("llama", tie_word_embeddings=True),
    "llama-biases": _case("llama", attention_bias=True, mlp_bias=True),
    "llama-linear": _case("llama", rope_scaling={"type": "linear", "factor": 4.0}),
    "llama-linear-transformers-5": _case(
        "llama", rope_parameters={"rope_type": "linear", "factor": 2.5, "rope_theta": 5000.0}
    ),
    "llama-llama3": _case(
        "llama", rope_theta=10000.0, rope_scaling={"rope_type": "llama3", **_LLAMA3}
    ),
    "llama-llama3-transformers-5": _case(
        "llama", rope_parameters={"rope_type": "llama3", "rope_theta": 500000.0, **_LLAMA3}
    ),
    "llama-yarn": _case("llama", rope_scaling=_YARN | {"finetuned": True}),
    "llama-yarn-transformers-5": _case(
        "llama",
        rope_parameters=_YARN
        | _MSCALE
        | {"rope_theta": 5e5, "truncate": False, "rope_type": "yarn"},
    ),
    "llama-yarn-attention": _case(
        "llama",
        original_max_position_embeddings=16,
        rope_scaling=_YARN | {"factor": None, "attention_factor": 1.25},
    ),
    "qwen2-yarn": _case("qwen2", max_position_embeddings=64, rope_theta=1e6, rope_scaling=_YARN),
    "llama-dynamic": _case(
        "llama", max_position_embeddings=44, rope_scaling={"type": "dynamic", "factor": 3.0}
    ),
    "llama-dynamic-prompt": Case(
        _SMALL
        | {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
        | {"max_position_embeddings": 24, "rope_theta": 5e5}
        | {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}},
        apart=True,
    ),
    "mistral": _case("mistral", sliding_window=None),
    "mistral-window": _case("mistral", sliding_window=9, head_dim=16),
    "qwen2": _case("qwen2", use_sliding_window=False, sliding_window=9, max_window_layers=1),
    "qwen2-tied": _case("qwen2", tie_word_embeddings=True, rope_theta=1000000.0),
    "qwen2-window": _case("qwen2", **_WINDOW),
    "qwen2-layer-types": _case("qwen2", **_WINDOW, layer_types=_KINDS),
    "qwen3": _case("qwen3", head_dim=16, tie_word_embeddings=True),
    "qwen3-biases": _case("qwen3", head_dim=16, attention_bias=True),
    "qwen3-window": _case("qwen3", head_dim=16, **_WINDOW),
    "float16": _case("llama", {"dtype": "F16"}),
    "bfloat16": _case("qwen2", {"dtype": "BF16"}),
    "two-files": _case("llama", {"files": 2}),
    "two-files-bfloat16": _case("qwen3", {"files": 2, "dtype": "BF16"}, head_dim=16),
}
