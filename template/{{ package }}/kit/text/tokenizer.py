"""A model's tokenizer, without transformers and without remote code."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tokenizers


LARGEST_FILE = 200_000_000  # bytes; a vocabulary of 262,144 tokens has 33 million
LARGEST_ID = (1 << 31) - 1
MOST_GROWTH = 64  # characters out of one: a text of 1 MB is then 64 MB


class TokenizerError(RuntimeError):
    """A model's tokenizer is missing or unusable."""


@dataclass(frozen=True)
class Tokenizer:
    """What exo asks of `engine.tokenizer`, over the `tokenizers` library.

    `eos_token_id` is the id that exo compares with (the one of tokenizer_config.json, as
    transformers has it); `eos_token_ids` are all the ids that end an answer.
    """

    folder: Path
    fast: "tokenizers.Tokenizer"
    eos_token_id: int
    eos_token_ids: frozenset[int]
    chat_template: str | None
    special_tokens: dict[str, str]

    @classmethod
    def from_folder(cls, folder: Path) -> "Tokenizer":
        """Read a Hugging Face folder. Raises TokenizerError."""
        import tokenizers

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise TokenizerError(f"{folder} has no tokenizer.json; download the model's tokenizer")
        with _no_panic(f"{path} is no tokenizer that can be read"):
            _refuse_more_than(LARGEST_FILE, path)
            fast = tokenizers.Tokenizer.from_file(str(path))
            # A file's own settings would cut a prompt, repeat it, or pad it to the end of memory;
            # the library acts on them at the first text, not before.
            fast.no_padding()
            fast.no_truncation()
            fast.post_processor = None
            _refuse_growth(fast)
        config = _read_json(folder / "tokenizer_config.json")
        special = _special_tokens(_read_json(folder / "special_tokens_map.json") | config)
        eos = _eos_ids(folder, fast, special)
        return cls(folder, fast, eos[0], frozenset(eos), _chat_template(folder, config), special)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that already has its special tokens. Raises TokenizerError.

        A batch of one: encode() keeps every other thread of Python waiting, for seconds.
        """
        with _no_panic("this text can't be tokenized"):
            ids: list[int] = self.fast.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return ids

    def decode(self, ids: Any) -> str:
        """The text of token ids, (S,) or a list; special tokens are kept."""
        with _no_panic("these ids can't be decoded"):
            return self.fast.decode([int(i) for i in ids], skip_special_tokens=False)


@contextmanager
def _no_panic(what: str) -> Iterator[None]:
    """The library's panics are no Exceptions: they would end whoever catches those alone."""
    try:
        yield
    except TokenizerError:
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise TokenizerError(f"{what}: {error}") from error
        raise


def _refuse_more_than(most: int, path: Path) -> None:
    if (size := path.stat().st_size) > most:
        raise TokenizerError(f"{path} has {size} bytes; no model's has more than {most}")


def _refuse_growth(fast: "tokenizers.Tokenizer") -> None:
    """Few replacements, one after the other, make more of a letter than there is memory."""
    for part in (fast.normalizer, fast.decoder):
        growth = 1 if part is None else _growth(json.loads(part.__getstate__()))
        if growth > MOST_GROWTH:
            raise TokenizerError(f"its replacements make {growth} characters out of one")


def _growth(part: Any) -> int:
    """How many characters a normalizer or a decoder may make out of one, at most."""
    if not isinstance(part, dict):
        return 1
    steps = part.get("normalizers", part.get("decoders")) or []
    written = [part[name] for name in ("content", "prepend") if isinstance(part.get(name), str)]
    return prod([max(1, len(text)) for text in written] + [_growth(step) for step in steps])


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        _refuse_more_than(LARGEST_FILE, path)
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise TokenizerError(
            f"{path} is not JSON: {error}; delete it and download it again"
        ) from error
    return content if isinstance(content, dict) else {}


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """bos_token, eos_token and their like; each is a text or an object with `content`."""
    found = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    return found


def _eos_ids(folder: Path, fast: "tokenizers.Tokenizer", special: dict[str, str]) -> list[int]:
    """Every EOS id, the one that exo's API compares with first."""
    named = fast.token_to_id(special["eos_token"]) if "eos_token" in special else None
    ids = [] if named is None else [named]
    for name in ("generation_config.json", "config.json"):
        value = _read_json(folder / name).get("eos_token_id")
        given = value if isinstance(value, list) else [value]
        ids += [i for i in given if type(i) is int and 0 <= i <= LARGEST_ID]
    if not ids:
        raise TokenizerError(
            f"{folder} names no end-of-sequence token; set eos_token in tokenizer_config.json"
        )
    return list(dict.fromkeys(ids))


def _chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    """The template's text; a list of named templates gives the one called default."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        _refuse_more_than(LARGEST_FILE, path)
        return path.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        named = [t for t in template if isinstance(t, dict) and t.get("name") == "default"]
        template = named[0].get("template") if named else None
    return template if isinstance(template, str) else None
