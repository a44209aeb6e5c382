"""A model's tokenizer, without transformers and without remote code."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..repository.facts import Facts, RepositoryError
from .child import command, environment
from .tokenizer_bounds import Bounds, load, refuse_tokens

if TYPE_CHECKING:
    import tokenizers


LARGEST_FILE = 200_000_000  # bytes; a vocabulary of 262,144 tokens has 33 million
SMALL_FILE = 1_000_000  # bytes; a larger one is loaded in a process of its own first
LOAD_SECONDS = 120.0  # there; 33 MB take a second or two
MOST_START = 4  # ids before a text
MOST_PIECES = 4 << 20  # characters that a text becomes before it is ids; 300 bytes each then
MOST_DECODED = 32 << 20  # bytes that ids may become
SLICE = 1 << 14  # bytes, normalized, that are looked at in one go: other threads go on in between
_CHILD = Path(__file__).with_name("tokenizer_bounds.py")


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
    bounds: Bounds = field(default_factory=Bounds)

    @classmethod
    def from_folder(cls, folder: Path) -> "Tokenizer":
        """Read a Hugging Face folder. Raises TokenizerError."""
        facts = Facts(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise TokenizerError(facts.no_tokenizer())
        try:
            fast, start, bounds = _read(path)
            special, template = facts.special_tokens, facts.chat_template
            with _no_panic(f"{path} can't take the tokens of tokenizer_config.json"):
                refuse_tokens([token["content"] for token in facts.added_tokens], bounds)
                _add_tokens(fast, facts.added_tokens)
            eos = _eos_ids(facts, fast)
            if start is None and facts.tokenizer.get("add_bos_token") is True:
                bos = fast.token_to_id(special.get("bos_token", ""))
                start = [] if bos is None else [bos]
        except RepositoryError as error:
            raise TokenizerError(str(error)) from error
        begin = tuple(start or ())
        return cls(folder, fast, eos[0], frozenset(eos), template, special, begin, bounds)

    @property
    def size(self) -> int:
        """One more than the greatest id."""
        return max(self.fast.get_vocab(with_added_tokens=True).values(), default=-1) + 1

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
            self._refuse_longer(text)
            ids: list[int] = self.fast.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return ids

    def _refuse_longer(self, text: str) -> None:
        """Raise TokenizerError for a text that becomes more than there is memory for."""
        bounds, size = self.bounds, len(text.encode())
        most, normalizer = MOST_PIECES // bounds.pieces, self.fast.normalizer
        if size * bounds.normalized <= most:
            return
        step = max(1, SLICE // bounds.normalized)
        if normalizer is not None:
            size = 0
            for n in range(0, len(text), step):
                size += len(normalizer.normalize_str(text[n : n + step]).encode())
                if size > most:
                    break
        if size > most:
            raise TokenizerError(f"the model's tokenizer makes more than {most} bytes of it")

    def decode(self, ids: Any) -> str:
        """The text of token ids, (S,) or a list; special tokens are kept."""
        with _no_panic("these ids can't be decoded"):
            numbers = [int(i) for i in ids]
            if self._decoded(numbers) > MOST_DECODED:
                raise TokenizerError(f"these {len(numbers)} ids are more than {MOST_DECODED} bytes")
            return self.fast.decode(numbers, skip_special_tokens=False)

    def _decoded(self, ids: list[int]) -> int:
        """How many bytes ids may become, at most."""
        each = self.bounds.decoded
        if len(ids) * self.bounds.longest * each <= MOST_DECODED:
            return 0
        return sum((4 * len(self.fast.id_to_token(i) or "") + 1) * each for i in ids)

    def text_of(self, token: int) -> str:
        """A token's text within a text: decoders treat a text's first one otherwise."""
        before, ids = self._before
        text = self.decode([*ids, token])
        return text.removeprefix(before) if text.startswith(before) else self.decode([token])

    @cached_property
    def _before(self) -> tuple[str, list[int]]:
        ids = self.encode("a")
        return self.decode(ids), ids


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


def _read(path: Path) -> tuple["tokenizers.Tokenizer", list[int] | None, Bounds]:
    """A tokenizer.json, the ids that its post-processor puts before a text, and its bounds.

    The ids are None without such a processor. Raises TokenizerError.
    """
    import tokenizers

    with _no_panic(f"{path} is no tokenizer that can be read"):
        if (size := path.stat().st_size) > LARGEST_FILE:
            most = f"no model's has more than {LARGEST_FILE}"
            raise TokenizerError(f"{path} has {size} bytes; {most}")
        if size > SMALL_FILE:
            bounds = _bounds_of_large(path)
            fast = tokenizers.Tokenizer.from_file(str(path))
        else:
            fast, bounds = load(path)
        # A file's own settings would cut a prompt, repeat it, or pad it to the end of memory;
        # the library acts on them at the first text, not before.
        fast.no_padding()
        fast.no_truncation()
        after = fast.post_processor
        start = None if after is None else _start(json.loads(after.__getstate__()))
        fast.post_processor = None
        return fast, start, bounds


def refuse_unbounded(folder: Path) -> None:
    """Raise TokenizerError where loading a folder's tokenizer.json fails, or may have no end."""
    if (path := folder / "tokenizer.json").is_file():
        _read(path)


def _bounds_of_large(path: Path) -> Bounds:
    """Load a file in a process of its own, which may end it. Raises TokenizerError."""
    one = {"RAYON_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}  # memory is counted by address
    try:
        done = subprocess.run(
            command(_CHILD, path),
            env=environment(**one),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LOAD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise TokenizerError(f"{path} takes longer than {LOAD_SECONDS:.0f} s to load") from None
    if done.returncode:
        raise TokenizerError(f"{path} takes more memory or time than any model's, or is broken")
    answer = json.loads(done.stdout)
    if "refused" in answer:
        raise TokenizerError(f"{path} can't be used: {answer['refused']}")
    return Bounds(**answer)


def _start(processor: Any) -> list[int]:
    """The ids before the text in a post-processor: those of a template's first special tokens."""
    if not isinstance(processor, dict):
        return []
    for one in processor.get("processors") or []:
        if start := _start(one):
            return start
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


def _eos_ids(facts: Facts, fast: "tokenizers.Tokenizer") -> list[int]:
    """Every EOS id, the one that exo's API compares with first."""
    named = fast.token_to_id(facts.special_tokens.get("eos_token", ""))
    ids = ([] if named is None else [named]) + facts.end_ids
    if not ids:
        raise TokenizerError(
            f"{facts.folder} names no end-of-sequence token; set eos_token in tokenizer_config.json"
        )
    return list(dict.fromkeys(ids))
