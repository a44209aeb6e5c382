"""What bytes the ids of a tokenizer's base vocabulary decode to, the other way round."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer as FastTokenizer

from ...text.tokenizer import TokenizerError

# Longer pieces exist (runs of spaces or dashes); skipping them bounds the work for each token.
MAX_PIECE_BYTES = 32

NEEDED = frozenset(range(0x20, 0x7F))  # without these there is no text at all

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_PIECEWISE_DECODERS = frozenset({"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"})


@dataclass
class Table:
    """Ids by what they decode to; bytewise: a piece may begin or end inside a character."""

    bytewise: bool
    pieces: dict[bytes, int] = field(default_factory=dict)
    singles: dict[int, int] = field(default_factory=dict)  # ids for one byte of a character
    longest: list[int] = field(default_factory=lambda: [0] * 256)  # by first byte

    def add(self, piece: bytes, token_id: int) -> None:
        """Enter a piece, unless it is too long or empty."""
        if not 0 < len(piece) <= MAX_PIECE_BYTES:
            return
        self.pieces[piece] = token_id
        if len(piece) > self.longest[piece[0]]:
            self.longest[piece[0]] = len(piece)

    def single(self, byte: int) -> int | None:
        """The id that spells one byte, where there is one."""
        return self.pieces.get(bytes((byte,)), self.singles.get(byte))


def build_table(fast: FastTokenizer) -> Table:
    """What every id of the base vocabulary decodes to.

    Raises TokenizerError where the decoder is of an unknown kind, or bytes have no piece.
    """
    steps = _decoder_steps(fast)
    kinds = [str(step.get("type")) for step in steps]
    # Added tokens are special or matched before the model runs: text must never become one.
    added = fast.get_added_tokens_decoder()
    everything = fast.get_vocab(with_added_tokens=False)
    vocab = {piece: token_id for piece, token_id in everything.items() if token_id not in added}
    table = _table(steps, kinds, vocab)
    if any(table.single(byte) is None for byte in NEEDED):
        # An end token may be the one piece of a letter: then that piece stands for it all the same.
        letters = {piece: token_id for piece, token_id in everything.items() if len(piece) == 1}
        table = _table(steps, kinds, vocab | letters)
    if missing := sum(table.single(byte) is None for byte in NEEDED):
        raise TokenizerError(
            f"The tokenizer's vocabulary has no piece for {missing} of the {len(NEEDED)} bytes "
            "that any text needs. Use the tokenizer.json that the model's authors published."
        )
    return table


def _table(steps: list[dict[str, Any]], kinds: list[str], vocab: dict[str, int]) -> Table:
    if kinds and set(kinds) <= {"ByteLevel", "Fuse"} and "ByteLevel" in kinds:
        return _byte_level_table(vocab)
    if kinds and set(kinds) <= _PIECEWISE_DECODERS:
        return _piecewise_table(vocab, _replacements(steps), "ByteFallback" in kinds)
    raise TokenizerError(
        f"The tokenizer's decoder ({', '.join(kinds) or 'none'}) is not supported. "
        "Use a model whose tokenizer.json has a ByteLevel or a SentencePiece style decoder."
    )


def _decoder_steps(fast: FastTokenizer) -> list[dict[str, Any]]:
    """The decoder's settings, with sequences laid out flat."""
    if fast.decoder is None:
        return []
    # Its pickled state is its JSON; writing the whole tokenizer as JSON takes 100 times longer.
    return _flatten(json.loads(fast.decoder.__getstate__()))


def _flatten(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    """A decoder's steps, of nested sequences too."""
    if decoder.get("type") != "Sequence":
        return [decoder]
    return [step for inner in decoder["decoders"] for step in _flatten(inner)]


def _replacements(steps: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The literal replacements that the decoder makes in each piece: texts, and what they become.

    Raises TokenizerError where one is a regular expression.
    """
    replacements: list[tuple[str, str]] = []
    for step in steps:
        if step["type"] == "Metaspace":
            replacements.append((step["replacement"], " "))
        elif step["type"] == "Replace":
            mark = step["pattern"].get("String")
            if mark is None:
                raise TokenizerError(
                    "The tokenizer's decoder replaces by a regular expression, which is not "
                    "supported. Use a model whose tokenizer.json has a plain decoder."
                )
            replacements.append((mark, step["content"]))
    return replacements


def _byte_level_table(vocab: dict[str, int]) -> Table:
    """Of a vocabulary whose characters stand for bytes, as in GPT-2 (bytes_to_unicode)."""
    table = Table(bytewise=True)
    characters = _byte_characters()
    for piece, token_id in vocab.items():
        try:
            data = piece.translate(characters).encode("latin-1")
        except UnicodeEncodeError:  # not a piece of bytes: the decoder takes it literally
            continue
        table.add(data, token_id)
    return table


def _byte_characters() -> dict[int, str]:
    """The bytes (as Latin-1) that the characters of byte-level pieces stand for."""
    printable = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
    hidden = [byte for byte in range(256) if byte not in printable]
    characters = dict.fromkeys(hidden, "\uffff")  # these never stand for themselves
    characters.update((256 + index, chr(byte)) for index, byte in enumerate(hidden))
    return characters


def _piecewise_table(
    vocab: dict[str, int], replacements: list[tuple[str, str]], byte_fallback: bool
) -> Table:
    """Of a vocabulary whose pieces are text with a mark for the space, as SentencePiece's."""
    table = Table(bytewise=False)
    marks_space = any(content == " " for _, content in replacements)
    for piece, token_id in vocab.items():
        if byte_fallback and (match := _BYTE_PIECE.fullmatch(piece)):
            table.singles[int(match[1], 16)] = token_id
            continue
        if marks_space and " " in piece:  # a decoder treats such a space unlike a marked one
            continue
        for mark, content in replacements:
            piece = piece.replace(mark, content)
        table.add(piece.encode("utf-8", "ignore"), token_id)
    return table
