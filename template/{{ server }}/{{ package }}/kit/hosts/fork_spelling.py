"""Turn the text that a server streams back into token ids.

The host wants ids, the server gives text in arbitrary pieces. Encoding a piece alone is wrong in
many ways: it can add BOS, a leading space or normal forms, and it turns text that looks like a
special token into that token. So the text is spelled instead, byte for byte, with the pieces of
the base vocabulary. The decoding of all ids handed out is then exactly all the text, for any cut,
and no text is ever held back.
"""

import json
import logging
import re
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer as FastTokenizer

from .tokenizer import TokenizerError

logger = logging.getLogger(__name__)

# Longer pieces exist (runs of spaces or dashes); skipping them bounds the work for each token.
MAX_PIECE_BYTES = 32

PROBE = " Hi there,  x=1;\n\t<0x41> <|im_end|></s> h\u00e9 \u4f60\u597d \U0001f642\ufffd \u2581 "
SPACE = b" "
UTF8_BYTES = frozenset((*range(0x80), *range(0x80, 0xC0), *range(0xC2, 0xF5)))
PRINTABLE_BYTES = frozenset(range(0x20, 0x7F))

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SURROGATE = re.compile("[\ud800-\udfff]")
_PIECEWISE_DECODERS = frozenset({"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"})


@dataclass
class _Table:
    """What bytes each id of the base vocabulary decodes to, the other way round."""

    pieces: dict[bytes, int] = field(default_factory=dict)
    singles: dict[int, int] = field(default_factory=dict)  # ids for one byte of a character
    longest: list[int] = field(default_factory=lambda: [0] * 256)  # by first byte

    def add(self, piece: bytes, token_id: int) -> None:
        """Take a piece in, unless it is too long or empty."""
        if not 0 < len(piece) <= MAX_PIECE_BYTES:
            return
        self.pieces[piece] = token_id
        if len(piece) > self.longest[piece[0]]:
            self.longest[piece[0]] = len(piece)

    def missing(self, needed: frozenset[int]) -> int:
        """Count the needed bytes that no piece spells."""
        return sum(
            byte not in self.singles and bytes((byte,)) not in self.pieces for byte in needed
        )


class Retokenizer:
    """Spells text with the ids of one tokenizer.

    Raises:
        TokenizerError: the tokenizer's decoder or vocabulary can't spell any text.
    """

    def __init__(self, fast: FastTokenizer) -> None:
        self._fast = fast
        self._logged = False
        self._table = _build_table(fast)
        self._space_id = self._table.pieces.get(SPACE, self._table.singles.get(SPACE[0], -1))
        self._lead = self._find_lead()
        self._check()

    def start(self) -> "Spelling":
        """Start spelling one answer."""
        return Spelling(self)

    def spell(self, text: str, first: bool) -> list[int]:
        """Return ids for the text; `first` says that no id was handed out before it."""
        try:
            data = text.encode()
        except UnicodeEncodeError:
            data = _SURROGATE.sub("\ufffd", text).encode()
        pieces, longest = self._table.pieces, self._table.longest
        ids: list[int] = []
        position, end = 0, len(data)
        while position < end:
            stop = min(end, position + longest[data[position]])
            while stop > position:
                token_id = pieces.get(data[position:stop])
                if token_id is not None:
                    ids.append(token_id)
                    break
                stop -= 1
            else:
                # Only pieces of whole characters can leave a gap, so a character begins here.
                stop = position + _character_length(data[position])
                ids.extend(self._spell_character(data[position:stop]))
            if first:
                first = False
                if SPACE in data[position:stop]:
                    ids[:0] = self._lead
            position = stop
        return ids

    def _spell_character(self, character: bytes) -> list[int]:
        """Spell one character that has no piece of its own."""
        single = self._table.singles
        try:
            return [single[byte] for byte in character]
        except KeyError:
            pass
        if not self._logged:
            self._logged = True
            logger.warning(
                "The vocabulary has no piece for the character %r: it may come out as another one. "
                "Check that the tokenizer belongs to the model.",
                character.decode(),
            )
        return list(self._fast.encode(character.decode(), add_special_tokens=False).ids)

    def _decode(self, ids: list[int]) -> str:
        """Decode as the engine does: nothing is skipped."""
        return self._fast.decode(ids, skip_special_tokens=False)

    def _find_lead(self) -> list[int]:
        """Return what to put before a first space: one more, where the decoder drops the first."""
        letter_id = self._table.pieces.get(b"a", self._table.singles.get(ord("a"), -1))
        lead_is_lost = self._decode([self._space_id, letter_id]) == "a"
        return [self._space_id] if lead_is_lost else []

    def _check(self) -> None:
        """Spell a probe in one piece and by character, and decode it again."""
        probe = PROBE
        if self._table.missing(UTF8_BYTES):
            probe = "".join(char for char in PROBE if char.encode() in self._table.pieces)
        whole = self.start().feed(probe)
        spelling = self.start()
        single = [token_id for char in probe for token_id in spelling.feed(char)]
        for ids in (whole, single):
            decoded = self._decode(ids)
            if decoded != probe:
                raise TokenizerError(
                    f"The tokenizer's decoder changes text: {probe!r} came back as {decoded!r}. "
                    "Use the tokenizer.json that the model's authors published."
                )


class Spelling:
    """The spelling of one answer: feed it text, in any pieces."""

    def __init__(self, retokenizer: Retokenizer) -> None:
        self._retokenizer = retokenizer
        self._first = True

    def feed(self, text: str) -> list[int]:
        """Return the ids of this text; those of all feeds together decode to all the text."""
        ids = self._retokenizer.spell(text, self._first)
        if ids:
            self._first = False
        return ids


def _character_length(lead: int) -> int:
    """Return how many bytes the UTF-8 character with this first byte has."""
    if lead < 0x80:
        return 1
    if lead < 0xE0:
        return 2
    return 3 if lead < 0xF0 else 4


def _build_table(fast: FastTokenizer) -> _Table:
    """Read what every id of the base vocabulary decodes to.

    Raises:
        TokenizerError: the decoder is of an unknown kind, or bytes have no piece.
    """
    steps = _decoder_steps(fast)
    kinds = [str(step.get("type")) for step in steps]
    # Added tokens are special or matched before the model runs: text must never become one.
    added = fast.get_added_tokens_decoder()
    vocab = {
        piece: token_id
        for piece, token_id in fast.get_vocab(with_added_tokens=False).items()
        if token_id not in added
    }
    if kinds and set(kinds) <= {"ByteLevel", "Fuse"} and "ByteLevel" in kinds:
        table, needed = _byte_level_table(vocab), UTF8_BYTES
    elif kinds and set(kinds) <= _PIECEWISE_DECODERS:
        table = _piecewise_table(vocab, _replacements(steps), "ByteFallback" in kinds)
        needed = PRINTABLE_BYTES
    else:
        raise TokenizerError(
            f"The tokenizer's decoder ({', '.join(kinds) or 'none'}) is not supported. "
            "Use a model whose tokenizer.json has a ByteLevel or a SentencePiece style decoder."
        )
    if missing := table.missing(needed):
        raise TokenizerError(
            f"The tokenizer's vocabulary has no piece for {missing} of the {len(needed)} bytes "
            "that text needs. Use the tokenizer.json that the model's authors published."
        )
    return table


def _decoder_steps(fast: FastTokenizer) -> list[dict[str, Any]]:
    """Return the decoder's settings, with sequences laid out flat."""
    if fast.decoder is None:
        return []
    # Its pickled state is its JSON; writing the whole tokenizer as JSON takes 100 times longer.
    return _flatten(json.loads(fast.decoder.__getstate__()))


def _flatten(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    """Lay a decoder's nested sequences out flat."""
    if decoder.get("type") != "Sequence":
        return [decoder]
    return [step for inner in decoder["decoders"] for step in _flatten(inner)]


def _replacements(steps: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the literal replacements that the decoder makes in each piece.

    Raises:
        TokenizerError: a replacement is a regular expression.
    """
    found: list[tuple[str, str]] = []
    for step in steps:
        if step["type"] == "Metaspace":
            found.append((step["replacement"], " "))
        elif step["type"] == "Replace":
            mark = step["pattern"].get("String")
            if mark is None:
                raise TokenizerError(
                    "The tokenizer's decoder replaces by a regular expression, which is not "
                    "supported. Use a model whose tokenizer.json has a plain decoder."
                )
            found.append((mark, step["content"]))
    return found


def _byte_level_table(vocab: dict[str, int]) -> _Table:
    """Read a vocabulary whose characters stand for bytes, as GPT-2 began it."""
    table = _Table()
    characters = _byte_characters()
    for piece, token_id in vocab.items():
        try:
            data = piece.translate(characters).encode("latin-1")
        except UnicodeEncodeError:  # not a piece of bytes: the decoder takes it literally
            continue
        table.add(data, token_id)
    return table


def _byte_characters() -> dict[int, str]:
    """Map the characters of byte-level pieces to the bytes (as Latin-1) that they stand for."""
    printable = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
    hidden = [byte for byte in range(256) if byte not in printable]
    characters = dict.fromkeys(hidden, "\uffff")  # these never stand for themselves
    characters.update((256 + index, chr(byte)) for index, byte in enumerate(hidden))
    return characters


def _piecewise_table(
    vocab: dict[str, int], replacements: list[tuple[str, str]], byte_fallback: bool
) -> _Table:
    """Read a vocabulary whose pieces are text with a mark for the space."""
    table = _Table()
    marks_space = any(content == " " for _, content in replacements)
    for piece, token_id in vocab.items():
        if byte_fallback and (found := _BYTE_PIECE.fullmatch(piece)):
            table.singles[int(found[1], 16)] = token_id
            continue
        if marks_space and " " in piece:  # a decoder treats such a space unlike a marked one
            continue
        for mark, content in replacements:
            piece = piece.replace(mark, content)
        table.add(piece.encode("utf-8", "ignore"), token_id)
    return table
