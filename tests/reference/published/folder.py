"""Writes one published repository as a folder: files, a tiny tokenizer, random weights."""

import json
from pathlib import Path
from typing import Any

_TINY = {
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def _tokenizer(repository: Any) -> Any:
    """A tokenizer.json of this kind, of some 260 tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    special = [*repository.tokens]
    if repository.kind == "sentencepiece":
        special = special if "<unk>" in special else ["<unk>", "<s>", "</s>", *special]
        words = [*special, *(f"<0x{b:02X}>" for b in range(256)), "▁", *"Hithere"]
        vocab = {word: n for n, word in enumerate(dict.fromkeys(words))}
        made = Tokenizer(
            models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>", fuse_unk=True)
        )
        made.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        made.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])
    else:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        made = Tokenizer(models.BPE(vocab={c: n for n, c in enumerate(alphabet)}, merges=[]))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    made.add_tokens([AddedToken(t, special=False, normalized=False) for t in repository.plain])
    start = next((t for t in ("<s>", "<|begin_of_text|>") if t in special), None)
    if start:
        made.post_processor = _starts_with(start, made.token_to_id(start))
    return made


def _starts_with(token: str, i: int) -> Any:
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A {token} $B", special_tokens=[(token, i)]
    )


def write(repository: Any, folder: Path, write_checkpoint: Any) -> None:
    """One repository, as a folder."""
    made = _tokenizer(repository)
    table = repository.tokenizer.get("added_tokens_decoder", {})
    known = {entry["content"]: int(i) for i, entry in table.items()}
    known |= repository.more.get("added_tokens", {})

    def ids(value: Any) -> Any:
        if isinstance(value, tuple):
            return [ids(one) for one in value]
        return made.token_to_id(value) if made.token_to_id(value) is not None else known[value]

    size = max([made.get_vocab_size() - 1, *known.values()]) + 1
    config = _TINY | {"vocab_size": size} | repository.config
    config = {key: value for key, value in config.items() if value is not ...}
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if isinstance(config.get(key), str | tuple):
            config[key] = ids(config[key])
    writes = {"seed": repository.context} | repository.writes
    write_checkpoint(folder, {"eos_token_id": None, "bos_token_id": None} | config, **writes)
    made.save(str(folder / "tokenizer.json"))
    kind = "LlamaTokenizerFast" if repository.kind == "sentencepiece" else "PreTrainedTokenizerFast"
    files = {"config": config, "tokenizer_config": {"tokenizer_class": kind} | repository.tokenizer}
    files |= repository.more
    (folder / "generation_config.json").unlink()
    if repository.ends is not None:
        files["generation_config"] = {"eos_token_id": ids(repository.ends)}
    for file, content in files.items():
        (folder / f"{file}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
