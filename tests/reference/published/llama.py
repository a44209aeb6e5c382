"""Llama 1 to 3.2, and what is laid out as they are."""

from . import tokens as t
from .repository import (
    KQI,
    LITGPT,
    METAL,
    PRESETS,
    RWKV,
    THUNDER,
    TPU,
    Repository,
    llama,
)

_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_type": "llama3"}
_NEAR = {"original_max_position_embeddings": 8192}
_SP_IDS = {"bos_token_id": "<s>", "eos_token_id": "</s>"}
_L3_BASE_IDS = {"bos_token_id": "<|begin_of_text|>", "eos_token_id": "<|end_of_text|>"}
_L3_IDS = _L3_BASE_IDS | {"eos_token_id": ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")}
_SMOL_IDS = {"bos_token_id": "<|im_start|>", "eos_token_id": "<|im_end|>"}
_SMOL2 = {"rope_scaling": None, "tie_word_embeddings": True, "pad_token_id": "<|im_end|>"}
_SMOL2 |= {"attention_bias": False, "mlp_bias": False, "pretraining_tp": 1} | _SMOL_IDS
_SMOL2_OWN = {"is_llama_config": True, "rope_interleaved": False, "rope_theta": 100000}
_SMOL2_OWN |= {"transformers.js_config": {"kv_cache_dtype": {"fp16": "float16"}}}
_BIAS = {"attention_bias": False, "mlp_bias": False, "pretraining_tp": 1}
_FAR = {"rope_theta": 500000.0}
_OF_LLAMA_2 = {"original_max_position_embeddings": 4096}
_HEAD = {"head_dim": 16, "tie_word_embeddings": True}
_BOTH = ("generation", "tokenizer")

LLAMA: dict[str, Repository] = {
    "chainyo/alpaca-lora-7b, of decapoda-research/llama-7b-hf": Repository(
        "hub:chainyo/alpaca-lora-7b@817a2be42521:config.json",
        llama(..., rms_norm_eps=1e-6, num_key_value_heads=..., max_sequence_length=2048)
        | {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": -1},
        2048,
        _BOTH,
        **t.SENTENCEPIECE | {"ends": None},
    ),
    "AlexeyChe/llama-7b-lora, of huggyllama/llama-7b": Repository(
        "hub:AlexeyChe/llama-7b-lora@d2a75269ed29:config.json",
        llama(2048, rms_norm_eps=1e-6, num_key_value_heads=..., max_sequence_length=2048)
        | {"pad_token_id": "<unk>"}
        | _SP_IDS,
        2048,
        _BOTH,
        **t.OBJECTS,
    ),
    "dfurman/llama-7b": Repository(
        "yellowtree123/Deterministic-Differentiable-Pruning@cb5e3370560b:llama-7b-hf/config.json",
        llama(2048, rms_norm_eps=1e-6, num_key_value_heads=..., pad_token_id="<unk>") | _SP_IDS,
        2048,
        _BOTH,
        writes={"dtype": "BF16"},
        **t.OBJECTS,
    ),
    "meta-llama/Llama-2-7b-hf": Repository(
        f"{KQI}; {TPU}Llama2/support/token_config",
        llama(4096, num_key_value_heads=4, pretraining_tp=1, rope_scaling=None) | _SP_IDS,
        4096,
        ("generation",),
        writes={"files": 2, "dtype": "F16"},
        **t.OBJECTS,
    ),
    "meta-llama/Llama-2-7b-chat-hf": Repository(
        f"{TPU}Llama2/compile/files/llama-2-7b-chat-hf/config.json, support/token_config",
        llama(4096, num_key_value_heads=4, pretraining_tp=1, rope_scaling=None) | _SP_IDS,
        4096,
        ("generation",),
        **t.OBJECTS | {"more": {"special_tokens_map": t.OBJECTS["tokenizer"]}},
    ),
    "lmsys/vicuna-13b-v1.5-16k": Repository(
        "hub:lmsys/vicuna-13b-v1.5-16k@043a612:config.json",
        llama(4096, num_key_value_heads=4, pad_token_id="<unk>", max_sequence_length=16384)
        | {"rope_scaling": {"factor": 4.0, "type": "linear"}, "pretraining_tp": 1}
        | _SP_IDS,
        16384,
        _BOTH,
        **t.SENTENCEPIECE,
    ),
    "NousResearch/Yarn-Llama-2-7b-64k": Repository(
        "hub:NousResearch/Yarn-Llama-2-7b-64k@08491431ac3b:config.json",
        llama(65536, num_key_value_heads=4, pretraining_tp=1, pad_token_id="<unk>")
        | {"rope_scaling": {"factor": 16.0, "type": "yarn", "finetuned": True} | _OF_LLAMA_2}
        | _SP_IDS,
        65536,
        _BOTH,
        **t.OBJECTS,
    ),
    "codellama/CodeLlama-7b-hf": Repository(
        PRESETS,
        llama(16384, num_key_value_heads=4, rope_theta=1000000, rope_scaling=None) | _SP_IDS,
        16384,
        _BOTH,
        **t.SENTENCEPIECE,
    ),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": Repository(
        f"{PRESETS}; swayam8624/nanoquant-private@0619c487e8df:TinyLlama-1.1B-Chat-v1.0",
        llama(2048, rope_theta=10000.0, attention_bias=False, rope_scaling=None, pretraining_tp=1)
        | _SP_IDS,
        2048,
        ("tokenizer",),
        writes={"dtype": "BF16"},
        **t.SENTENCEPIECE,
    ),
    "01-ai/Yi-6B-Chat": Repository(
        f"{TPU}Yi/compile/files/Yi-6B-Chat/config.json (its context shortened), token_config",
        llama(4096, rope_theta=5000000.0, rope_scaling=None, attention_bias=False)
        | {"bos_token_id": "<|startoftext|>", "eos_token_id": "<|endoftext|>"},
        4096,
        ("context",),
        **t.YI,
    ),
    "deepseek-ai/deepseek-llm-7b-base": Repository(
        KQI,
        llama(4096, rms_norm_eps=1e-6, num_key_value_heads=4, rope_theta=10000.0)
        | {"bos_token_id": t.DEEPSEEK["tokens"][0], "eos_token_id": t.DEEPSEEK["ends"]},
        4096,
        _BOTH,
        **t.DEEPSEEK,
    ),
    "llm-jp/llm-jp-3-1.8b": Repository(
        f"{RWKV}llmjp",
        llama(4096, num_key_value_heads=4, rope_theta=10000, head_dim=16) | _BIAS | _SP_IDS,
        4096,
        **t.LLM_JP,
    ),
    "ALLaM-AI/ALLaM-7B-Instruct-preview": Repository(
        METAL.format("e4739cdc459c", "ALLaM-7B-Instruct-preview"),
        llama(4096, num_key_value_heads=4, rope_theta=1000000.0, head_dim=16) | _BIAS | _SP_IDS,
        4096,
        _BOTH,
        **t.SENTENCEPIECE,
    ),
    "RekaAI/reka-flash-3": Repository(
        f"{RWKV}rekaflash3",
        llama(32768, rope_theta=8000000, rope_scaling=None, pretraining_tp=1)
        | {"bos_token_id": "<|endoftext|>", "eos_token_id": "<|endoftext|>"},
        32768,
        writes={"files": 2, "dtype": "BF16"},
        **t.REKA,
    ),
    "Infinigence/Megrez-3B-Instruct": Repository(
        f"{TPU}Megrez/compile/file/Megrez-3B-Instruct/config.json, token_config",
        llama(32768, rope_theta=5000000.0, max_sequence_length=32768, rope_scaling=None)
        | {"bos_token_id": None, "eos_token_id": "<|turn_end|>", "pad_token_id": "<|pad|>"}
        | _BIAS,
        32768,
        ("generation",),
        **t.MEGREZ,
    ),
    "meta-llama/Meta-Llama-3-8B": Repository(
        KQI,
        llama(8192, rope_scaling=None, attention_bias=False) | _FAR | _L3_BASE_IDS,
        8192,
        _BOTH,
        **t.LLAMA3_BASE,
    ),
    "meta-llama/Meta-Llama-3-8B-Instruct": Repository(
        f"{THUNDER}llama/llama_3_8B_Instruct_config.py; "
        "neuralmagic/neural-magic-vllm@9a4be7fc185b:tests/tokenization/test_get_eos.py",
        llama(8192, rope_scaling=None) | _FAR | _L3_BASE_IDS | {"eos_token_id": "<|eot_id|>"},
        8192,
        **t.LLAMA3 | {"ends": ("<|end_of_text|>", "<|eot_id|>")},
    ),
    "dreamgen/opus-v1.2-llama-3-8b": Repository(
        "hub:dreamgen/opus-v1.2-llama-3-8b@7457713495fa:config.json",
        llama(8192, rope_scaling={"factor": 4.0, "type": "dynamic"}) | _FAR | _BIAS | _L3_BASE_IDS,
        32768,
        _BOTH,
        **t.LLAMA3_BASE,
    ),
    "meta-llama/Llama-3.1-8B-Instruct": Repository(
        METAL.format("f64bd68c5702", "Llama-3.1-8B-Instruct"),
        llama(131072, rope_scaling=_LLAMA3 | _NEAR | {"factor": 8.0}) | _FAR | _BIAS | _L3_IDS,
        131072,
        ("generation",),
        **t.LLAMA3,
    ),
    "meta-llama/Llama-3.2-1B-Instruct": Repository(
        METAL.format("c14cf98ecaee", "Llama-3.2-1B-Instruct"),
        llama(131072, rope_scaling=_LLAMA3 | _NEAR | {"factor": 32.0}, **_HEAD)
        | _FAR
        | _BIAS
        | _L3_IDS,
        131072,
        ("generation",),
        **t.LLAMA3,
    ),
    "meta-llama/Llama-3.2-3B-Instruct": Repository(
        f"{TPU}Llama3/config",
        llama(131072, rope_scaling=_LLAMA3 | _NEAR | {"factor": 32.0}, **_HEAD)
        | _FAR
        | _BIAS
        | _L3_IDS,
        131072,
        writes={"files": 2, "dtype": "BF16"},
        **t.LLAMA3,
    ),
    "NousResearch/Hermes-3-Llama-3.1-8B": Repository(
        "hub:nick911/hermes-3-llama-3-1-8B@ad4e28e:config.json",
        llama(131072, rope_scaling=_LLAMA3 | _NEAR | {"factor": 8.0})
        | _FAR
        | _BIAS
        | {"bos_token_id": "<|begin_of_text|>", "eos_token_id": "<|im_end|>"},
        131072,
        _BOTH,
        **t.HERMES3,
    ),
    "HuggingFaceTB/SmolLM-135M-Instruct": Repository(
        PRESETS, llama(2048, rope_theta=10000.0) | _SMOL2, 2048, _BOTH, **t.SMOL
    ),
    "HuggingFaceTB/SmolLM2-135M-Instruct": Repository(
        PRESETS, llama(8192) | _SMOL2 | _SMOL2_OWN, 8192, _BOTH, **t.SMOL
    ),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": Repository(
        LITGPT,
        llama(8192, rope_theta=130000) | _SMOL2,
        8192,
        _BOTH,
        writes={"files": 2},
        **t.SMOL,
    ),
}
