"""Tiny tokenizers of the kinds that published models have, made in code."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

WORDS = ("the", "answer", "question", "hello", "you", "are", "world", "assistant", "user", "system")

CHATML = (
    "{% if tools %}{{ tools | tojson + '\\n' }}{% endif %}"
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. "
    "You are a helpful assistant.<|im_end|>\\n' }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def byte_level_bpe(folder: Path) -> Tokenizer:
    """Write a tokenizer like Qwen's: byte-level, NFC, special tokens after the base vocabulary."""
    fast = _byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    fast.normalizer = normalizers.NFC()
    return _write(folder, fast, bos=None, eos="<|im_end|>", other_eos="<|endoftext|>")


def bos_adding(folder: Path) -> Tokenizer:
    """Write a tokenizer like Llama 3's: byte-level, and encoding puts BOS in front."""
    bos = "<|begin_of_text|>"
    fast = _byte_level([bos, "<|end_of_text|>", "<|eot_id|>"])
    fast.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, _id(fast, bos))]
    )
    return _write(folder, fast, bos=bos, eos="<|eot_id|>", other_eos="<|end_of_text|>")


def sentencepiece_style(folder: Path) -> Tokenizer:
    """Write a tokenizer like Llama 2's: special tokens and byte pieces in the base vocabulary."""
    special = ["<unk>", "<s>", "</s>"]
    byte_pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    alphabet = ["▁", *(chr(code) for code in range(0x21, 0x7F)), "é"]
    words = [*WORDS, *(f"▁{word}" for word in WORDS), "▁▁"]
    vocab, merges = _vocabulary([*special, *byte_pieces, *alphabet], words)
    fast = Tokenizer(
        BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    fast.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    fast.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    fast.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", vocab["<s>"])]
    )
    fast.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in special]
    )
    return _write(folder, fast, bos="<s>", eos="</s>", other_eos=None)


def _byte_level(special: list[str]) -> Tokenizer:
    """Make a byte-level BPE over all 256 bytes."""
    words = [*WORDS, *(f"Ġ{word}" for word in WORDS), "ĠĠ", "ĊĊ", "!!", ".."]
    vocab, merges = _vocabulary(sorted(pre_tokenizers.ByteLevel.alphabet()), words)
    fast = Tokenizer(BPE(vocab=vocab, merges=merges))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in special]
    )
    return fast


def _vocabulary(base: list[str], words: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Grow a vocabulary by the words: each is merged from its left end."""
    vocab = {piece: index for index, piece in enumerate(base)}
    merges: list[tuple[str, str]] = []
    for word in words:
        for end in range(2, len(word) + 1):
            if word[:end] not in vocab:
                vocab[word[:end]] = len(vocab)
                merges.append((word[: end - 1], word[end - 1]))
    return vocab, merges


def _id(fast: Tokenizer, token: str) -> int:
    """Return the id of a token that is there."""
    token_id = fast.token_to_id(token)
    assert token_id is not None
    return token_id


def _write(
    folder: Path, fast: Tokenizer, *, bos: str | None, eos: str, other_eos: str | None
) -> Tokenizer:
    """Write the files that a model's repository has beside its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    eos_ids = [_id(fast, token) for token in (eos, other_eos) if token is not None]
    bos_id = None if bos is None else _id(fast, bos)
    fast.save(str(folder / "tokenizer.json"))
    _dump(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": bos,
            "eos_token": eos,
            "chat_template": CHATML,
            "clean_up_tokenization_spaces": False,
        },
    )
    _dump(folder / "generation_config.json", {"bos_token_id": bos_id, "eos_token_id": eos_ids})
    _dump(
        folder / "config.json",
        {
            "model_type": "llama",
            "bos_token_id": bos_id,
            "eos_token_id": eos_ids[0],
            "vocab_size": fast.get_vocab_size(),
        },
    )
    return fast


def _dump(path: Path, value: dict[str, Any]) -> None:
    """Write one JSON file."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")
