"""What the repositories' tokenizer_config.json and generation_config.json say of tokens.

Chat templates are shortened; the tokens in them and their order are the published ones'.
"""

from typing import Any

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' }}"
    "{% endfor %}{{ '<|im_start|>assistant\\n' }}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endfor %}"
)
_LLAMA3_CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + "
    "'<|end_header_id|>\\n\\n' + m['content'] + '<|eot_id|>' }}{% endfor %}"
)
_MEGREZ_CHAT = (
    "{% for m in messages %}{{ '<|role_start|>' + m['role'] + '<|role_end|>' + m['content'] + "
    "'<|turn_end|>' }}{% endfor %}{{ '<|role_start|>assistant<|role_end|>' }}"
)


def added(*tokens: str, at: int, special: bool = True) -> dict[str, Any]:
    """An added_tokens_decoder of these tokens, whose first id is `at`."""
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {str(at + n): {"content": t, "special": special} | flags for n, t in enumerate(tokens)}


def _object(text: str) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    return {"__type": "AddedToken", "content": text} | flags


SENTENCEPIECE: dict[str, Any] = {
    "kind": "sentencepiece",
    "tokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "ends": "</s>",
}
# As Llama 2's own revision has them: no added_tokens_decoder, and no chat template.
OBJECTS: dict[str, Any] = SENTENCEPIECE | {
    "tokenizer": {
        "bos_token": _object("<s>"),
        "eos_token": _object("</s>"),
        "unk_token": _object("<unk>"),
        "pad_token": None,
        "add_bos_token": True,
        "add_eos_token": False,
    }
}
# By its own class, LlamaTokenizer, transformers 5.24 makes a tokenizer of the vocabulary alone,
# where no space comes behind a special token; tokenizer.json and transformers 4.46 have one there.
_AS_WRITTEN = {"tokenizer_class": "PreTrainedTokenizerFast"}
INSTRUCT: dict[str, Any] = SENTENCEPIECE | {
    "tokenizer": SENTENCEPIECE["tokenizer"]
    | {"added_tokens_decoder": added("<unk>", "<s>", "</s>", at=0), "chat_template": INST}
    | {"additional_special_tokens": [], "add_bos_token": True, "add_eos_token": False}
    | _AS_WRITTEN
}
_YI = ("<unk>", "<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>")
# The answer's end is in generation_config.json alone; config.json and the tokenizer have another.
YI: dict[str, Any] = {
    "kind": "sentencepiece",
    "tokens": _YI,
    "tokenizer": {"bos_token": _YI[1], "eos_token": _YI[2], "unk_token": "<unk>"}
    | {"pad_token": "<unk>", "added_tokens_decoder": added(*_YI, at=0), "add_bos_token": False}
    | {"additional_special_tokens": [*_YI[3:]], "chat_template": CHATML}
    | _AS_WRITTEN,
    "ends": "<|im_end|>",
}
_L3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")
_L3 += ("<|start_header_id|>", "<|end_header_id|>")
LLAMA3_BASE: dict[str, Any] = {
    "tokens": _L3,
    "tokenizer": {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
    "ends": "<|end_of_text|>",
}
LLAMA3: dict[str, Any] = {
    "tokens": _L3,
    "tokenizer": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    | {"added_tokens_decoder": added(*_L3, at=256), "chat_template": _LLAMA3_CHAT},
    "ends": ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
}
_DEEPSEEK = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")  # noqa: RUF001 - its own marks
DEEPSEEK: dict[str, Any] = {
    "tokens": _DEEPSEEK,
    "tokenizer": {"bos_token": _DEEPSEEK[0], "eos_token": _DEEPSEEK[1]},
    "ends": _DEEPSEEK[1],
}
HERMES3: dict[str, Any] = {
    "tokens": (*_L3, "<|im_end|>", "<|im_start|>"),
    "tokenizer": {"bos_token": "<|begin_of_text|>", "eos_token": "<|im_end|>"}
    | {"chat_template": CHATML},
    "ends": "<|im_end|>",
}
# <|im_end|> is added behind the vocabulary, and isn't special.
OPENHERMES: dict[str, Any] = SENTENCEPIECE | {
    "plain": ("<|im_end|>", "<|im_start|>"),
    "tokenizer": {"bos_token": "<s>", "eos_token": "<|im_end|>", "unk_token": "<unk>"}
    | {"chat_template": CHATML}
    | _AS_WRITTEN,
    "ends": "<|im_end|>",
}
_Q = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN_BASE: dict[str, Any] = {
    "tokens": _Q,
    "tokenizer": {"bos_token": None, "eos_token": _Q[0], "pad_token": _Q[0], "unk_token": None}
    | {"added_tokens_decoder": added(*_Q, at=256), "additional_special_tokens": [*_Q[1:]]}
    | {"chat_template": CHATML},
    "ends": _Q[0],
}
QWEN: dict[str, Any] = QWEN_BASE | {
    "tokenizer": QWEN_BASE["tokenizer"] | {"eos_token": "<|im_end|>"},
    "ends": ("<|im_end|>", "<|endoftext|>"),
}
_TOOLS = ("<tool_call>", "</tool_call>")
QWEN25: dict[str, Any] = QWEN | {
    "plain": _TOOLS,
    "tokenizer": QWEN["tokenizer"]
    | {"added_tokens_decoder": added(*_Q, at=256) | added(*_TOOLS, at=259, special=False)},
}
_THINK = (*_TOOLS, "<think>", "</think>")
QWEN3: dict[str, Any] = QWEN | {
    "plain": _THINK,
    "tokenizer": QWEN["tokenizer"]
    | {"added_tokens_decoder": added(*_Q, at=256) | added(*_THINK, at=259, special=False)},
}
SMOL: dict[str, Any] = {
    "tokens": _Q,
    "tokenizer": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": _Q[0]}
    | {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "chat_template": CHATML},
    "ends": "<|im_end|>",
}
_SMALL = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")
MISTRAL_SMALL: dict[str, Any] = {
    "tokens": _SMALL,
    "tokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    | {"added_tokens_decoder": added(*_SMALL, at=256), "additional_special_tokens": [*_SMALL]}
    | {"chat_template": INST, "add_bos_token": True},
    "ends": "</s>",
}
_MEGREZ = ("<|eos|>", "<|unk|>", "<|pad|>", "<|role_start|>", "<|role_end|>", "<|turn_end|>")
MEGREZ: dict[str, Any] = {
    "tokens": _MEGREZ,
    "tokenizer": {"eos_token": "<|turn_end|>", "pad_token": "<|pad|>", "add_bos_token": False}
    | {"added_tokens_decoder": added(*_MEGREZ, at=256), "chat_template": _MEGREZ_CHAT},
    "ends": "<|turn_end|>",
}
REKA: dict[str, Any] = {
    "tokens": ("<|endoftext|>",),
    "tokenizer": {"bos_token": _Q[0], "eos_token": _Q[0], "unk_token": _Q[0]}
    | {"add_prefix_space": False, "added_tokens_decoder": added("<|endoftext|>", at=256)}
    | {"additional_special_tokens": ["<|endoftext|>"]},
    "ends": "<|endoftext|>",
}
_JP = ("<unk>", "<s>", "</s>", "<MASK|LLM-jp>", "<PAD|LLM-jp>", "<CLS|LLM-jp>", "<SEP|LLM-jp>")
LLM_JP: dict[str, Any] = {
    "kind": "sentencepiece",
    "tokens": _JP,
    "tokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    | {"mask_token": _JP[3], "pad_token": _JP[4], "cls_token": _JP[5], "sep_token": _JP[6]}
    | {"eod_token": "</s>", "extra_special_tokens": {}}
    | {"added_tokens_decoder": added(*_JP, at=0), "add_bos_token": True}
    | _AS_WRITTEN,
    "ends": "</s>",
}
