"""Qwen 1.5 to 3."""

from . import tokens as t
from .repository import KQI, METAL, PRESETS, TPU, Repository, qwen2, qwen3

_BASE = {"bos_token_id": "<|endoftext|>", "eos_token_id": "<|endoftext|>"}
_CHAT = _BASE | {"eos_token_id": "<|im_end|>"}
_BOTH = ("generation", "tokenizer")
_I6 = "rwth-i6/i6_experiments@6b0591b10c1b:users/juanola/experiments/e25_11_13_ctc/"
_I6 += "configurations/qwen2/qwen2_configs.py"
_CARD = "akougkas/warpio-cli@8dde6d21c14c:warpio-docs/ai-docs/model_cards/qwen3:4b.md"
_HEADS = {"head_dim": 32}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}

QWEN: dict[str, Repository] = {
    "Qwen/Qwen1.5-0.5B-Chat": Repository(
        f"{TPU}Qwen1_5/compile/files/Qwen1.5-0.5B-Chat/config.json, token_config",
        qwen2(32768, tie_word_embeddings=True, sliding_window=32768, max_window_layers=21) | _CHAT,
        32768,
        ("generation",),
        **t.QWEN,
    ),
    "Qwen/Qwen1.5-4B-Chat": Repository(
        f"{TPU}Qwen1_5/compile/files/Qwen1.5-4B-Chat/config.json, token_config",
        qwen2(32768, rope_theta=5e6, sliding_window=32768, max_window_layers=21) | _CHAT,
        32768,
        ("generation",),
        **t.QWEN,
    ),
    "Qwen/Qwen2-0.5B": Repository(
        _I6,
        qwen2(131072, tie_word_embeddings=True, sliding_window=131072, max_window_layers=24)
        | _BASE,
        131072,
        _BOTH,
        **t.QWEN_BASE,
    ),
    "Qwen/Qwen2-7B-Instruct": Repository(
        f"{TPU}Qwen2/compile/files/Qwen2-7B-Instruct/config.json, support/token_config",
        qwen2(32768, sliding_window=131072, max_window_layers=28) | _CHAT,
        32768,
        ("generation",),
        **t.QWEN,
    ),
    "Qwen/Qwen2.5-7B": Repository(
        KQI,
        qwen2(131072, sliding_window=131072, max_window_layers=28, use_mrope=False) | _BASE,
        131072,
        _BOTH,
        **t.QWEN_BASE,
    ),
    "Qwen/Qwen2.5-0.5B-Instruct, saved by transformers 4.49": Repository(
        "infinityarpan/qwen-25-api@88ec35fc849f:models/Qwen2.5-0.5B-Instruct/config.json",
        qwen2(32768, tie_word_embeddings=True, sliding_window=32768, max_window_layers=21)
        | {"rope_scaling": None}
        | _CHAT,
        32768,
        _BOTH,
        **t.QWEN25,
    ),
    "Qwen/Qwen2.5-1.5B-Instruct, saved by transformers 5.1": Repository(
        "ilyassLambardi/Bilingual-Voice-Ai-Application-@82a39dd22509:models/Qwen2.5-1.5B-Instruct",
        qwen2(32768, tie_word_embeddings=True, sliding_window=None, max_window_layers=21)
        | {"rope_theta": ..., "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}
        | {"dtype": "float16", "pad_token_id": None, "layer_types": ["full_attention"] * 2}
        | _CHAT,
        32768,
        ("tokenizer",),
        writes={"dtype": "F16"},
        **t.QWEN25,
    ),
    "Qwen/Qwen2.5-3B-Instruct": Repository(
        PRESETS,
        qwen2(32768, tie_word_embeddings=True, sliding_window=32768, max_window_layers=70) | _CHAT,
        32768,
        _BOTH,
        **t.QWEN25,
    ),
    "Qwen/Qwen2.5-7B-Instruct": Repository(
        f"{TPU}Qwen2_5/config",
        qwen2(32768, sliding_window=131072, max_window_layers=28) | _CHAT,
        32768,
        writes={"files": 2, "dtype": "BF16"},
        **t.QWEN25,
    ),
    "Qwen/Qwen3-0.6B": Repository(
        PRESETS,
        qwen3(40960, tie_word_embeddings=True, max_window_layers=28) | _HEADS | _CHAT,
        40960,
        _BOTH,
        **t.QWEN3,
    ),
    "Qwen/Qwen3-4B": Repository(
        f"{TPU}Qwen3/config",
        qwen3(40960, tie_word_embeddings=True, max_window_layers=36) | _HEADS | _CHAT,
        40960,
        writes={"files": 2, "dtype": "BF16"},
        **t.QWEN3,
    ),
    # No head_dim: 128, the one that transformers knows, and not hidden_size by heads.
    "Qwen/Qwen3-8B": Repository(
        METAL.format("945d4167ae60", "Qwen3-8B"),
        qwen3(40960, max_window_layers=36) | _CHAT,
        40960,
        _BOTH,
        **t.QWEN3,
    ),
    "Qwen/Qwen3-8B, with the YaRN of its documentation": Repository(
        METAL.format("945d4167ae60", "Qwen3-8B")
        + "; QwenLM/Qwen2.5@b2a1e833efaa:docs/source/deployment/vllm.md (Context Length)",
        qwen3(40960, max_window_layers=36, rope_scaling=_YARN) | _CHAT,
        131072,
        _BOTH,
        **t.QWEN3,
    ),
    "Qwen/Qwen3-4B-Thinking-2507": Repository(
        _CARD,
        qwen3(262144, rope_theta=5000000, tie_word_embeddings=True, max_window_layers=36)
        | _HEADS
        | _CHAT,
        262144,
        ("generation",),
        **t.QWEN3,
    ),
}
