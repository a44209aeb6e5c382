"""Mistral 0.1 to 0.3, Nemo, Ministral and Small, and a fine-tune with tokens of its own."""

from . import tokens as t
from .repository import LITGPT, METAL, PRESETS, RWKV, THUNDER, TPU, Repository, mistral

_IDS = {"bos_token_id": "<s>", "eos_token_id": "</s>"}
_BOTH = ("generation", "tokenizer")
_NX = "NX-AI/mlstm_kernels@39d3c61741e5:mlstm_kernels/utils/benchmark/benchmarks/"
_NX += "huggingface_model_configs.py"
# transformers' to_dict has every default of generation in config.json.
_DUMPED = {"return_dict": True, "is_encoder_decoder": False, "max_length": 20, "do_sample": False}
_DUMPED |= {"num_beams": 1, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "pruned_heads": {}}
_DUMPED |= {"tokenizer_class": None, "pad_token_id": None, "id2label": {"0": "LABEL_0"}}

MISTRAL: dict[str, Repository] = {
    "mistralai/Mistral-7B-v0.1": Repository(
        PRESETS,
        mistral(32768, sliding_window=4096, rope_theta=10000.0) | _IDS,
        32768,
        _BOTH,
        **t.SENTENCEPIECE,
    ),
    "teknium/OpenHermes-2.5-Mistral-7B": Repository(
        "hub:vicky4s4s/mistral-2-7B@7e8c2f3:config.json; "
        "hub:unsloth/OpenHermes-2.5-Mistral-7B@8ec3fc1a4693:generation_config.json",
        mistral(32768, sliding_window=4096, rope_theta=10000.0)
        | {"bos_token_id": "<s>", "eos_token_id": "<|im_end|>"},
        32768,
        ("tokenizer",),
        **t.OPENHERMES,
    ),
    "mistralai/Mistral-7B-Instruct-v0.2": Repository(
        f"{TPU}Mistral/compile/files/Mistral-7B-Instruct-v0.2/config.json (its context shortened), "
        f"token_config; {LITGPT} for the context",
        mistral(32768, sliding_window=None, rope_theta=1000000.0) | _IDS,
        32768,
        ("generation",),
        **t.INSTRUCT,
    ),
    "mistralai/Mistral-7B-Instruct-v0.3": Repository(
        METAL.format("07ed0f40ea27", "Mistral-7B-Instruct-v0.3"),
        mistral(32768, sliding_window=None, rope_theta=1000000.0) | _DUMPED | _IDS,
        32768,
        _BOTH,
        **t.INSTRUCT | {"tokens": ("[INST]", "[/INST]")},
    ),
    "mistralai/Mistral-Nemo-Base-2407": Repository(
        f"{THUNDER}mistral/mistral_config.py",
        mistral(128000, sliding_window=None, rope_theta=1000000.0, hidden_size=80, head_dim=16)
        | _IDS,
        128000,
        _BOTH,
        **t.MISTRAL_SMALL,
    ),
    "mistralai/Ministral-8B-Instruct-2410": Repository(
        _NX,
        mistral(32768, sliding_window=32768, rope_theta=100000000.0, head_dim=16) | _IDS,
        32768,
        _BOTH,
        **t.MISTRAL_SMALL,
    ),
    "mistralai/Mistral-Small-24B-Instruct-2501": Repository(
        f"{RWKV}mistralsmall3",
        mistral(32768, sliding_window=None, rope_theta=1e8, hidden_size=80, head_dim=16) | _IDS,
        32768,
        writes={"files": 2, "dtype": "BF16"},
        **t.MISTRAL_SMALL,
    ),
}
