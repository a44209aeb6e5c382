"""Bytes to a model's folder whose files are broken somewhere: read, or refused with a sentence."""

import json
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from checkpoint import Bytes, mutated

STEPS: tuple[Any, ...] = (
    None, {"type": "NFKC"}, {"type": "ByteLevel", "add_prefix_space": True}, {"type": "Lowercase"},
    {"type": "Replace", "pattern": {"String": "a"}, "content": "bb"}, {"type": "Digits"},
    {"type": "Replace", "pattern": {"Regex": "a*"}, "content": "bb"}, {"type": "Fuse"},
    {"type": "Prepend", "prepend": "x"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    {"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAAAA"}, {"type": "Nmt"},
    {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False},
    {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": True},
    {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}},
    {"type": "FixedLength", "length": 2}, {"type": "WordPiece", "prefix": "#", "cleanup": True},
)  # fmt: skip
TOKENIZER = {
    "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
    "added_tokens": [{
        "id": 2, "content": "</s>", "single_word": False, "lstrip": False, "rstrip": False,
        "normalized": False, "special": True,
    }],
    "pre_tokenizer": None, "post_processor": None, "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "</s>": 2}, "unk_token": "b"},
}  # fmt: skip
FILES: dict[str, Any] = {
    "config.json": {
        "model_type": "llama", "num_hidden_layers": 2, "eos_token_id": [2, 3], "head_dim": 8,
        "max_position_embeddings": 64, "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "text_config": {"num_hidden_layers": 2},
    },
    "generation_config.json": {"eos_token_id": [2]},
    "tokenizer_config.json": {
        "eos_token": {"content": "</s>"}, "add_bos_token": True, "bos_token": "a",
        "added_tokens_decoder": {"2": {"content": "</s>", "special": True}},
        "chat_template": [{"name": "default", "template": "x"}], "extra_special_tokens": ["a"],
    },
    "genai_config.json": {
        "model": {
            "context_length": 64, "eos_token_id": 2,
            "decoder": {"num_hidden_layers": 2, "head_size": 8, "filename": "model.onnx"},
        }
    },
    "special_tokens_map.json": {"eos_token": "</s>", "additional_special_tokens": ["a"]},
    "added_tokens.json": {"<x>": 7},
}  # fmt: skip


def attack_in(folder: Path, package: str) -> Callable[[bytes], None]:
    """Function of a fuzzer's bytes; only the reader's own errors are no finding."""
    facts = import_module(f"{package}.kit.repository.facts")
    tokenizer = import_module(f"{package}.kit.text.tokenizer")

    def attack(data: bytes) -> None:
        choice = Bytes(data)
        for name, content in written(choice).items():
            (folder / name).write_bytes(content)
        read = facts.Facts(folder)
        for member in ("layers", "context", "head_size", "special_tokens", "added_tokens"):
            see(read, member, facts.RepositoryError)
        for member in ("end_ids", "chat_template"):
            see(read, member, facts.RepositoryError)
        with suppress(tokenizer.TokenizerError):
            made = tokenizer.Tokenizer.from_folder(folder)
            made.decode(made.encode_prompt("ab a</s>b" * 20, plain=True))

    return attack


def see(read: Any, member: str, refused: type[Exception]) -> None:
    """One of a folder's facts, or its own refusal."""
    with suppress(refused):
        getattr(read, member)


def written(choice: Bytes) -> dict[str, bytes]:
    """The files of a folder, in which some values are others, and some files are no JSON."""
    tokenizer: dict[str, Any] = dict(TOKENIZER)
    for part, steps in (("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers"),
                        ("decoder", "decoders"), ("post_processor", "processors")):  # fmt: skip
        if choice.below(2):
            made = [STEPS[choice.below(len(STEPS))] for _ in range(choice.below(4))]
            tokenizer[part] = {"type": "Sequence", steps: made} if made[1:] else (made or [None])[0]
    files = {}
    for name, value in (FILES | {"tokenizer.json": tokenizer}).items():
        for _ in range(choice.below(3)):
            value = mutated(choice, value)
        text = json.dumps(value).encode()
        if not choice.below(12):
            text = (b'{"eos_token_id": ' + b"9" * 5000 + b"}", text[:-3], b"[" * 5000, b"\xff")[
                choice.below(4)
            ]
        files[name] = text
    return files
