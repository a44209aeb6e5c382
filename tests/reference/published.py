"""Published repositories as their authors laid them out: keys, spellings, tokens; tiny sizes.

Their layouts were written down from what is known of them, most without a look at the repository
and so without a revision; public copies were read of Llama 2 7B, Llama 3.1 8B and Llama 3.2 1B
alone. Where a repository's own files differ, they are right. Weights are random, made by
kit/llama's own writer. Token ids are those of tiny tokenizers (published_folder.py) with each
repository's special tokens.
"""

from dataclasses import dataclass, field
from typing import Any

TEXT = "Hi there"
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_type": "llama3"}
_NEAR = {"original_max_position_embeddings": 8192}
_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' }}"
    "{% endfor %}{{ '<|im_start|>assistant\\n' }}"
)
_INST = (
    "{{ bos_token }}{% for m in messages %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endfor %}"
)
_LLAMA3_CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + "
    "'<|end_header_id|>\\n\\n' + m['content'] + '<|eot_id|>' }}{% endfor %}"
)


@dataclass(frozen=True)
class Repository:
    """One repository. config: of config.json, over tiny sizes; `...` leaves a key out.

    kind: of its tokenizer, "sentencepiece" or "bytes". tokens: the special ones that tokenizer.json
    has. ends: those of generation_config.json, None where there is no such file.
    """

    config: dict[str, Any]
    context: int
    kind: str = "bytes"
    tokens: tuple[str, ...] = ()
    tokenizer: dict[str, Any] = field(default_factory=dict)
    ends: tuple[str, ...] | str | None = None
    more: dict[str, Any] = field(default_factory=dict)  # other files, by name
    writes: dict[str, Any] = field(default_factory=dict)  # how the weights are written


def _llama(context: int, **config: Any) -> dict[str, Any]:
    named = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu"}
    return named | {"max_position_embeddings": context, "rms_norm_eps": 1e-5} | config


def _of(name: str, model_type: str, context: int, **config: Any) -> dict[str, Any]:
    return _llama(context, architectures=[name], model_type=model_type, **config)


def _qwen2(context: int, **config: Any) -> dict[str, Any]:
    usual = {"rms_norm_eps": 1e-6, "rope_theta": 1e6, "sliding_window": 32768}
    usual |= {"use_sliding_window": False, "max_window_layers": 21}
    return _of("Qwen2ForCausalLM", "qwen2", context) | usual | config


def _qwen3(context: int, **config: Any) -> dict[str, Any]:
    usual = {"rms_norm_eps": 1e-6, "rope_theta": 1e6, "rope_scaling": None, "sliding_window": None}
    usual |= {"head_dim": 32, "attention_bias": False, "use_sliding_window": False}
    return _of("Qwen3ForCausalLM", "qwen3", context, max_window_layers=28) | usual | config


def _mistral(context: int, **config: Any) -> dict[str, Any]:
    return _of("MistralForCausalLM", "mistral", context, tie_word_embeddings=False) | config


def _added(*tokens: str, at: int) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {str(at + n): {"content": t, "special": True} | flags for n, t in enumerate(tokens)}


_SP = {
    "kind": "sentencepiece",
    "tokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "ends": "</s>",
}
_AS_WRITTEN = {"tokenizer_class": "PreTrainedTokenizerFast"}
_SP_OBJECTS = _SP | {
    "tokenizer": {
        name: {"__type": "AddedToken", "content": text, "lstrip": False, "normalized": True}
        | {"rstrip": False, "single_word": False}
        for name, text in (("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>"))
    }
}
_L3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")
_L3 += ("<|start_header_id|>", "<|end_header_id|>")
_L3_BASE = {
    "tokens": _L3,
    "tokenizer": {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
    "ends": "<|end_of_text|>",
}
_L3_CHAT = {
    "tokens": _L3,
    "tokenizer": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    | {"chat_template": _LLAMA3_CHAT},
    "ends": ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
}
_Q = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_Q_BASE = {
    "tokens": _Q,
    "tokenizer": {"bos_token": None, "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    | {"added_tokens_decoder": _added(*_Q, at=256), "chat_template": _CHATML},
    "ends": "<|endoftext|>",
}
_Q_CHAT = _Q_BASE | {
    "tokenizer": _Q_BASE["tokenizer"] | {"eos_token": "<|im_end|>"},
    "ends": ("<|im_end|>", "<|endoftext|>"),
}
_SMOL = {
    "tokens": _Q,
    "tokenizer": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": _Q[0]}
    | {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "chat_template": _CHATML},
    "ends": "<|im_end|>",
}

REPOSITORIES: dict[str, Repository] = {
    "huggyllama/llama-7b": Repository(
        _llama(2048, rms_norm_eps=1e-6, num_key_value_heads=..., tie_word_embeddings=False),
        2048,
        **_SP_OBJECTS,
    ),
    "decapoda-research/llama-7b-hf": Repository(
        _llama(..., architectures=["LLaMAForCausalLM"], rms_norm_eps=1e-6, num_key_value_heads=...),
        2048,
        **_SP,
    ),
    "meta-llama/Llama-2-7b-hf": Repository(
        _llama(4096, num_key_value_heads=4, pretraining_tp=1, rope_scaling=None),
        4096,
        **_SP_OBJECTS,
    ),
    "meta-llama/Llama-2-7b-chat-hf": Repository(
        _llama(4096, rope_scaling=None),
        4096,
        # By its own class, transformers 5.24 makes a tokenizer of the vocabulary alone, where no
        # space comes behind a special token; tokenizer.json and transformers 4.46 have one there.
        **_SP | {"tokenizer": _SP["tokenizer"] | {"chat_template": _INST} | _AS_WRITTEN},
    ),
    "lmsys/vicuna-7b-v1.5-16k": Repository(
        _llama(4096, rope_scaling={"factor": 4.0, "type": "linear"}), 16384, **_SP
    ),
    "meta-llama/Meta-Llama-3-8B": Repository(_llama(8192, rope_theta=500000.0), 8192, **_L3_BASE),
    "meta-llama/Meta-Llama-3-8B-Instruct": Repository(
        _llama(8192, rope_theta=500000.0, eos_token_id="<|eot_id|>"), 8192, **_L3_CHAT
    ),
    "meta-llama/Llama-3.1-8B-Instruct": Repository(
        _llama(
            131072,
            rope_theta=500000.0,
            mlp_bias=False,
            attention_bias=False,
            rope_scaling=_LLAMA3 | _NEAR | {"factor": 8.0},
        ),
        131072,
        **_L3_CHAT,
    ),
    "meta-llama/Llama-3.2-1B": Repository(
        _llama(
            131072,
            rope_theta=500000.0,
            head_dim=32,
            tie_word_embeddings=True,
            rope_scaling=_LLAMA3 | _NEAR | {"factor": 32.0},
        ),
        131072,
        **_L3_BASE,
    ),
    "unsloth/Llama-3.2-1B-Instruct": Repository(
        _llama(
            131072,
            rope_theta=500000.0,
            head_dim=32,
            tie_word_embeddings=True,
            rope_scaling=_LLAMA3 | _NEAR | {"factor": 32.0},
            pad_token_id="<|eom_id|>",
        ),
        131072,
        **_L3_CHAT,
    ),
    "NousResearch/Hermes-3-Llama-3.1-8B": Repository(
        _llama(131072, rope_theta=500000.0, rope_scaling=_LLAMA3 | _NEAR | {"factor": 8.0}),
        131072,
        tokens=_L3,
        tokenizer={
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|im_end|>",
            "chat_template": _CHATML,
        }
        | {"added_tokens_decoder": _added(*_L3, "<|im_start|>", "<|im_end|>", at=256)},
        ends=("<|end_of_text|>", "<|im_end|>"),
    ),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": Repository(
        _llama(2048, rope_theta=10000.0, attention_bias=False),
        2048,
        writes={"dtype": "BF16"},
        **_SP,
    ),
    "HuggingFaceTB/SmolLM-135M": Repository(
        _llama(2048, rope_theta=10000.0, tie_word_embeddings=True),
        2048,
        tokens=_Q,
        tokenizer={"bos_token": _Q[0], "eos_token": _Q[0], "unk_token": _Q[0]},
        ends=_Q[0],
    ),
    "HuggingFaceTB/SmolLM2-135M-Instruct": Repository(
        _llama(
            8192,
            rope_theta=100000,
            rope_interleaved=False,
            rope_scaling=None,
            is_llama_config=True,
            tie_word_embeddings=True,
        ),
        8192,
        **_SMOL,
    ),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": Repository(
        _llama(8192, rope_theta=130000, tie_word_embeddings=True),
        8192,
        writes={"files": 2},
        **_SMOL,
    ),
    "Qwen/Qwen1.5-0.5B-Chat": Repository(_qwen2(32768, tie_word_embeddings=True), 32768, **_Q_CHAT),
    "Qwen/Qwen2-0.5B": Repository(
        _qwen2(131072, tie_word_embeddings=True, sliding_window=131072, max_window_layers=24),
        131072,
        **_Q_BASE,
    ),
    "Qwen/Qwen2.5-0.5B-Instruct": Repository(
        _qwen2(32768, tie_word_embeddings=True), 32768, **_Q_CHAT
    ),
    "Qwen/Qwen2.5-7B-Instruct": Repository(
        _qwen2(32768, tie_word_embeddings=False, sliding_window=131072, max_window_layers=28),
        32768,
        writes={"files": 2, "dtype": "BF16"},
        **_Q_CHAT,
    ),
    "Qwen/Qwen3-0.6B": Repository(_qwen3(40960, tie_word_embeddings=True), 40960, **_Q_CHAT),
    "Qwen/Qwen3-4B-Instruct-2507": Repository(
        _qwen3(262144, rope_theta=5e6, tie_word_embeddings=True), 262144, **_Q_CHAT
    ),
    "Qwen/Qwen3-8B saved by transformers 5": Repository(
        _qwen3(
            40960,
            rope_theta=...,
            rope_scaling=...,
            tie_word_embeddings=False,
            rope_parameters={"rope_theta": 1e6, "rope_type": "default"},
            dtype="bfloat16",
            layer_types=["full_attention"] * 2,
        ),
        40960,
        **_Q_CHAT,
    ),
    "mistralai/Mistral-7B-v0.1": Repository(
        _mistral(32768, sliding_window=4096, rope_theta=10000.0), 32768, **_SP
    ),
    "mistralai/Mistral-7B-Instruct-v0.2": Repository(
        _mistral(32768, sliding_window=None, rope_theta=1e6),
        32768,
        **_SP | {"tokenizer": _SP["tokenizer"] | {"chat_template": _INST}},
    ),
    "mistralai/Mistral-7B-Instruct-v0.3": Repository(
        _mistral(32768, sliding_window=None, rope_theta=1e6, head_dim=32),
        32768,
        tokens=("[INST]", "[/INST]"),
        **_SP | {"tokenizer": _SP["tokenizer"] | {"chat_template": _INST}},
    ),
    "mistralai/Mistral-Small-24B-Instruct-2501": Repository(
        _mistral(32768, sliding_window=None, rope_theta=1e8, head_dim=32),
        32768,
        tokens=("<s>", "</s>", "[INST]", "[/INST]"),
        tokenizer={"bos_token": "<s>", "eos_token": "</s>", "chat_template": _INST},
        ends="</s>",
    ),
    "a fine-tune with tokens of its own in tokenizer_config.json alone": Repository(
        _llama(4096),
        4096,
        tokens=("<s>", "</s>"),
        ends=None,
        tokenizer={"bos_token": "<s>", "eos_token": "<|im_end|>", "chat_template": _CHATML}
        | {"added_tokens_decoder": _added("<s>", "</s>", "<|im_start|>", "<|im_end|>", at=256)},
    ),
    "a fine-tune of transformers 4.30, with added_tokens.json": Repository(
        _llama(2048, rms_norm_eps=1e-6),
        2048,
        tokens=("<s>", "</s>"),
        ends="</s>",
        tokenizer={"bos_token": "<s>", "eos_token": "</s>", "chat_template": _CHATML},
        more={
            "added_tokens": {"<|im_start|>": 258, "<|im_end|>": 259},
            "special_tokens_map": {"eos_token": "<|im_end|>", "bos_token": "<s>"},
        },
    ),
}
