"""What a tokenizer may make of a text, at most: growth and lengths, counted before any text.

Two dozen steps that each double a text end the process, and the library bounds none. As a script
(`tokenizer_bounds.py FILE`) it loads a file in a process of its own, bounded in memory and time;
tokenizer.py starts it for large files. It imports nothing of ours.
"""

import base64
import json
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tokenizers

MEMORY = 4 << 30  # bytes to load a file in; one of 33 MB takes a tenth of it
CPU_SECONDS = 60
MOST_STEPS = 64  # of a normalizer, and of each other part; published ones have up to ten
MOST_GROWTH = 4096  # bytes out of one, by a text's normalizer and pre-tokenizer
MOST_DECODED = 64  # bytes out of one of a token; a host decodes on its loop
MOST_TOKEN = 4096  # characters of one token; runs of blanks have some hundred
MOST_ADDED = 4 << 20  # bytes that all added tokens may become; they are normalized by the load
MOST_AFFIX = 256  # characters that a model puts before or behind each piece of a word
MOST_WORD = 256  # characters of a word: WordPiece's work grows with their third power

# How many bytes a step makes out of one, in UTF-8; of the forms, as Unicode's FAQ on them has it.
_NORMALIZERS = {
    "BertNormalizer": 12,  # blanks around CJK characters, NFD, lower case
    "ByteLevel": 2,
    "Lowercase": 2,
    "NFC": 3,
    "NFD": 3,
    "NFKC": 11,
    "NFKD": 11,
    "Nmt": 1,
    "Strip": 1,
    "StripAccents": 1,
}
_PRE_TOKENIZERS = {
    "BertPreTokenizer": 1,
    "ByteLevel": 2,
    "CharDelimiterSplit": 1,
    "Delimiter": 1,
    "Digits": 1,
    "FixedLength": 1,
    "Punctuation": 1,
    "Split": 1,
    "UnicodeScripts": 1,
    "Whitespace": 1,
    "WhitespaceSplit": 1,
}
_DECODERS = {
    "BPEDecoder": 3,  # a blank for its suffix, which may be empty
    "ByteFallback": 1,
    "ByteLevel": 3,  # the mark for a byte that is no character
    "CTC": 3,  # likewise for its delimiter
    "Fuse": 1,
    "Metaspace": 1,
    "Strip": 1,
    "WordPiece": 2,
}
_REPEATS = frozenset("*+{(")


class BoundsError(ValueError):
    """A tokenizer may take more than a node has; the text says by what."""


@dataclass(frozen=True)
class Bounds:
    """What comes out of one byte, at most, and the longest token, in bytes.

    normalized: bytes of a normalized text. pieces: characters of a pre-tokenized one, each of
    which can be an id. decoded: bytes of a token's text.
    """

    normalized: int = 1
    pieces: int = 1
    decoded: int = 1
    longest: int = 1


def load(path: Path) -> tuple["tokenizers.Tokenizer", Bounds]:
    """A file's tokenizer, and its bounds. Raises BoundsError, and whatever the library raises.

    Added tokens are normalized by the load: it is tried without them first.
    """
    import tokenizers

    document = json.loads(path.read_bytes())
    without: dict[str, Any] = {
        "added_tokens": [],
        "truncation": None,
        "padding": None,
        "post_processor": None,
    }
    bounds = bounds_of(tokenizers.Tokenizer.from_str(json.dumps(document | without)))
    refuse_tokens([token["content"] for token in document.get("added_tokens") or ()], bounds)
    fast = tokenizers.Tokenizer.from_str(json.dumps(document))
    return fast, bounds_of(fast)


def refuse_tokens(contents: list[str], bounds: Bounds) -> None:
    """Raise BoundsError for tokens to add that are more than there is time for."""
    size = sum(len(content) for content in contents) * 4 * bounds.normalized
    if size > MOST_ADDED:
        raise BoundsError(f"its added tokens may become {size} bytes; no model's are {MOST_ADDED}")


def bounds_of(fast: "tokenizers.Tokenizer") -> Bounds:
    """The bounds of a loaded tokenizer. Raises BoundsError."""
    normalized = prod(_growths(fast.normalizer, _NORMALIZERS))
    pieces = _pieces(fast.pre_tokenizer)
    decoded = prod(_growths(fast.decoder, _DECODERS, repeats=False))
    for growth, most in ((normalized * pieces, MOST_GROWTH), (decoded, MOST_DECODED)):
        if growth > most:
            raise BoundsError(f"its steps make {growth} bytes out of one; no model's make {most}")
    _refuse_slow(fast.model)
    longest = max((len(token) for token in fast.get_vocab()), default=0)
    if longest > MOST_TOKEN:
        raise BoundsError(f"it has a token of {longest} characters; no model's has {MOST_TOKEN}")
    return Bounds(normalized, pieces, decoded, 4 * longest + 1)


def _refuse_slow(model: Any) -> None:
    """A model whose work for one word has no bound."""
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if (affix := getattr(model, name, None)) and len(affix) > MOST_AFFIX:
            raise BoundsError(f"its {name} has {len(affix)} characters; no model's has more than 9")
    word = getattr(model, "max_input_chars_per_word", 0)
    if word > MOST_WORD:
        raise BoundsError(f"its max_input_chars_per_word is {word}; models have 100")


def _pieces(part: Any) -> int:
    """Characters out of one byte, by a pre-tokenizer: the last ByteLevel's two bytes are one."""
    kinds = [step["type"] for step in _steps_of(part)]
    return prod(_growths(part, _PRE_TOKENIZERS)) // (2 if "ByteLevel" in kinds else 1)


def _growths(part: Any, kinds: dict[str, int], repeats: bool = True) -> list[int]:
    """How many bytes each of a part's steps makes out of one."""
    return [_step(step, kinds, repeats) for step in _steps_of(part)]


def _steps_of(part: Any) -> list[dict[str, Any]]:
    """The steps of a part of the library's, those of sequences one after the other."""
    steps = [] if part is None else list(_steps(json.loads(part.__getstate__())))
    if len(steps) > MOST_STEPS:
        raise BoundsError(f"it has {len(steps)} steps; no model's has more than {MOST_STEPS}")
    return steps


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """The steps within a step."""
    for name in ("normalizers", "pretokenizers", "decoders"):
        if part.get("type") == "Sequence" and name in part:
            for step in part[name]:
                yield from _steps(step)
            return
    yield part


def _step(step: dict[str, Any], kinds: dict[str, int], repeats: bool) -> int:
    """How many bytes a step makes out of one."""
    kind = step["type"]
    if kind == "Replace":
        return _replaced(step["pattern"], step["content"], repeats)
    if kind == "Prepend":  # before each text between two added tokens
        return 1 + len(step["prepend"].encode())
    if kind == "Precompiled":
        return _mapped(step["precompiled_charsmap"])
    if kind == "Metaspace" and kinds is _PRE_TOKENIZERS:  # before each piece, and for a blank
        return 1 + len(step["replacement"].encode())
    if kind not in kinds:
        raise BoundsError(f"how much its step {kind!r} makes of a text isn't known")
    blank = kind == "ByteLevel" and kinds is _PRE_TOKENIZERS and step["add_prefix_space"]
    return kinds[kind] * (2 if blank else 1)  # before each piece


def _replaced(pattern: dict[str, str], content: str, repeats: bool) -> int:
    new, old = len(content.encode()), len(pattern.get("String", "").encode())
    if old:
        return max(1, -(-new // old))
    expression = pattern.get("Regex", "")
    if not repeats and _REPEATS & set(expression):
        raise BoundsError(f"its decoder's expression {expression[:40]!r} may take any time")
    return 1 + 2 * new  # an empty match is before each character, and at the end


def _mapped(charsmap: Any) -> int:
    """The longest text in a map of characters: it has a trie's size, the trie, texts up to NUL."""
    content = base64.b64decode(charsmap) if isinstance(charsmap, str) else bytes(charsmap)
    [size] = struct.unpack_from("<I", content)
    return max(1, *(len(text) for text in content[4 + size :].split(b"\0")))


def _bound_process() -> None:
    """Where the system can; Windows can't."""
    if sys.platform != "win32":
        import resource

        for kind, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, CPU_SECONDS)):
            with suppress(ValueError, OSError):
                resource.setrlimit(kind, (most, most))


def main(path: Path) -> None:
    """Print the bounds of a file's tokenizer, or why it is refused."""
    _bound_process()
    try:
        answer: dict[str, Any] = asdict(load(path)[1])
    except Exception as error:
        answer = {"refused": str(error)[:1000] or type(error).__name__}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
