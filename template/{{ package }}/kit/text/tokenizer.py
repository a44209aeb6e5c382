"""A model's tokenizer, without transformers and without remote code."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..repository.facts import Facts, RepositoryError

if TYPE_CHECKING:
    import tokenizers


LARGEST_FILE = 200_000_000  # bytes; a vocabulary of 262,144 tokens has 33 million
MOST_START = 4  # ids before a text
MOST_GROWTH = 64  # characters out of one: a text of 1 MB is then 64 MB


class TokenizerError(RuntimeError):
    """A model's tokenizer is missing or unusable."""


@dataclass(frozen=True)
class Tokenizer:
    """What exo asks of `engine.tokenizer`, over the `tokenizers` library.

    `eos_token_id` is the id that exo compares with (the one of tokenizer_config.json, as
    transformers has it); `eos_token_ids` are all the ids that end an answer; `start_ids` are those
    that the model wants before a text.
    """

    folder: Path
    fast: "tokenizers.Tokenizer"
    eos_token_id: int
    eos_token_ids: frozenset[int]
    chat_template: str | None
    special_tokens: dict[str, str]
    start_ids: tuple[int, ...] = ()

    @classmethod
    def from_folder(cls, folder: Path) -> "Tokenizer":
        """Read a Hugging Face folder. Raises TokenizerError."""
        facts = Facts(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise TokenizerError(facts.no_tokenizer())
        try:
            fast, start = _read(path)
            special, template = facts.special_tokens, facts.chat_template
            with _no_panic(f"{path} can't take the tokens of tokenizer_config.json"):
                _add_tokens(fast, facts.added_tokens)
            eos = _eos_ids(facts, fast)
            if start is None and facts.tokenizer.get("add_bos_token") is True:
                bos = fast.token_to_id(special.get("bos_token", ""))
                start = [] if bos is None else [bos]
        except RepositoryError as error:
            raise TokenizerError(str(error)) from error
        begin = tuple(start or ())
        return cls(folder, fast, eos[0], frozenset(eos), template, special, begin)

    def encode_prompt(self, text: str, plain: bool = False) -> list[int]:
        """Token ids of a prompt. Raises TokenizerError.

        A chat template writes the token that a text begins with. What no template made gets it
        here, where it isn't there already; plain: a text that no template made.
        """
        ids, start = self.encode(text), list(self.start_ids)
        if (plain or self.chat_template is None) and ids and ids[: len(start)] != start:
            return start + ids
        return ids

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
    except (TokenizerError, RepositoryError):
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise TokenizerError(f"{what}: {error}") from error
        raise


def _read(path: Path) -> tuple["tokenizers.Tokenizer", list[int] | None]:
    """A tokenizer.json, and the ids that its post-processor puts before a text; None without one.

    Raises TokenizerError.
    """
    import tokenizers

    with _no_panic(f"{path} is no tokenizer that can be read"):
        if (size := path.stat().st_size) > LARGEST_FILE:
            most = f"no model's has more than {LARGEST_FILE}"
            raise TokenizerError(f"{path} has {size} bytes; {most}")
        fast = tokenizers.Tokenizer.from_file(str(path))
        # A file's own settings would cut a prompt, repeat it, or pad it to the end of memory;
        # the library acts on them at the first text, not before.
        fast.no_padding()
        fast.no_truncation()
        after = fast.post_processor
        start = None if after is None else _start(json.loads(after.__getstate__()))
        fast.post_processor = None
        _refuse_growth(fast)
    return fast, start


def _start(processor: Any) -> list[int]:
    """The ids before the text in a post-processor: those of a template's first special tokens."""
    if not isinstance(processor, dict):
        return []
    for one in processor.get("processors") or []:
        if found := _start(one):
            return found
    ids: list[int] = []
    for piece in processor.get("single") or []:
        if "SpecialToken" not in piece or len(ids) >= MOST_START:
            break
        ids += processor["special_tokens"][piece["SpecialToken"]["id"]]["ids"]
    return ids


def _add_tokens(fast: "tokenizers.Tokenizer", tokens: list[dict[str, Any]]) -> None:
    """Join the tokens of a folder's other files to those of tokenizer.json."""
    import tokenizers

    fast.add_tokens([tokenizers.AddedToken(**token) for token in tokens])


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


def _eos_ids(facts: Facts, fast: "tokenizers.Tokenizer") -> list[int]:
    """Every EOS id, the one that exo's API compares with first."""
    named = fast.token_to_id(facts.special_tokens.get("eos_token", ""))
    ids = ([] if named is None else [named]) + facts.end_ids
    if not ids:
        raise TokenizerError(
            f"{facts.folder} names no end-of-sequence token; set eos_token in tokenizer_config.json"
        )
    return list(dict.fromkeys(ids))
