"""Small models of every architecture, and shards of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from exo.inference.shard import Shard

Array = np.ndarray[Any, np.dtype[Any]]

LAYERS = 4
_SMALL = {
    "hidden_act": "silu",
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 61,
    "max_position_embeddings": 400,
    "rms_norm_eps": 1e-6,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": _SMALL | {"architectures": ["LlamaForCausalLM"]},
    "mistral": _SMALL | {"architectures": ["MistralForCausalLM"], "sliding_window": 9},
    "qwen2": _SMALL | {"architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": True},
    "qwen3": _SMALL
    | {
        "architectures": ["Qwen3ForCausalLM"],
        "head_dim": 12,
        "use_sliding_window": True,
        "sliding_window": 9,
        "max_window_layers": 2,
    },
}


def shards(*cuts: int) -> list[Shard]:
    """Return the shards of a model that is cut before these layers."""
    starts, ends = (0, *cuts), (*cuts, LAYERS)
    pairs = zip(starts, ends, strict=True)
    return [Shard("small", start, end - 1, LAYERS) for start, end in pairs]


def tokens(length: int, seed: int = 0) -> Array:
    """Return ids (1, S), read-only as those of a peer are."""
    ids = np.random.default_rng(seed).integers(0, _SMALL["vocab_size"], (1, length))
    ids.flags.writeable = False
    return ids


def edit_config(folder: Path, **changes: Any) -> None:
    """Change keys of a folder's config.json; `...` removes one."""
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    content = {key: value for key, value in content.items() if value is not ...}
    path.write_text(json.dumps(content), encoding="utf-8")
