"""Token ids for the text that a server streams.

The host wants ids, the server gives text in arbitrary pieces. Encoding a piece alone is wrong in
many ways: it can add BOS, a leading space or normal forms, and it turns text that looks like a
special token into that token. So the text is put together, byte for byte, of the pieces of the
base vocabulary. The decoding of all ids handed out is then exactly all the text, for any cut, and
no text is ever held back.
"""

import logging
import re

from tokenizers import Tokenizer as FastTokenizer

from ...text.tokenizer import TokenizerError
from .vocabulary import build_table

logger = logging.getLogger(__name__)

PROBE = " Hi there,  x=1;\n\t<0x41> <|im_end|></s> h\u00e9 \u4f60\u597d \U0001f642\ufffd \u2581 "
SPACE = b" "

_SURROGATE = re.compile("[\ud800-\udfff]")


class SpellingError(ValueError):
    """A text that the tokenizer has no ids for."""


class Retokenizer:
    """Puts text together of the ids of one tokenizer.

    Raises TokenizerError where the tokenizer's decoder or vocabulary can't give plain text.
    """

    def __init__(self, fast: FastTokenizer) -> None:
        self._fast = fast
        self._logged = False
        self._table = build_table(fast)
        self._space_id = self._table.single(SPACE[0])
        self._lead = self._find_lead()
        self._check()

    def start(self) -> "Spelling":
        """Start with one answer."""
        return Spelling(self)

    def spell(self, text: str, first: bool) -> list[int]:
        """Ids for the text; first: no id was handed out before it.

        Raises SpellingError where no ids of this vocabulary decode to it.
        """
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
                if self._table.bytewise:
                    return self._spell_otherwise(data)
                # Only pieces of whole characters can leave a gap, so a character begins here.
                stop = position + _character_length(data[position])
                ids.extend(self._spell_character(data[position:stop]))
            if first:
                first = False
                if SPACE in data[position:stop]:
                    ids[:0] = self._lead
            position = stop
        return ids

    def _spell_otherwise(self, data: bytes) -> list[int]:
        """Ids for bytes where the longest pieces lead to a byte that has no piece of its own."""
        pieces, longest = self._table.pieces, self._table.longest
        # Of each place that can be reached: from which one, and by what id.
        ways: list[tuple[int, int] | None] = [None] * (len(data) + 1)
        far = 0
        for start, byte in enumerate(data):
            if start and ways[start] is None:
                continue
            far = start
            for stop in range(start + 1, min(len(data), start + longest[byte]) + 1):
                token_id = pieces.get(data[start:stop])
                if token_id is not None and ways[stop] is None:
                    ways[stop] = (start, token_id)
        ids: list[int] = []
        position = len(data)
        while position:
            way = ways[position]
            if way is None:
                raise SpellingError(
                    f"the answer has the byte 0x{data[far]:02X}, for which the model's vocabulary "
                    "has no token: the server's model is another one than the tokenizer's"
                )
            position, token_id = way
            ids.append(token_id)
        return ids[::-1]

    def _spell_character(self, character: bytes) -> list[int]:
        """Ids for one character that has no piece of its own."""
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
        """The text of ids, as the engine decodes them: nothing is skipped."""
        return self._fast.decode(ids, skip_special_tokens=False)

    def _find_lead(self) -> list[int]:
        """The ids before a first space: one more, where the decoder drops the first."""
        space, letter = self._space_id, self._table.single(ord("a"))
        assert space is not None  # the table has all of ASCII
        assert letter is not None
        return [space] if self._decode([space, letter]) == "a" else []

    def _check(self) -> None:
        """Refuse a tokenizer whose ids for a probe, whole or by character, are another text."""
        probe = "".join(char for char in PROBE if self._has(char))
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

    def _has(self, char: str) -> bool:
        """Whether the vocabulary has a character, whole or by its bytes."""
        data = char.encode()
        return data in self._table.pieces or None not in map(self._table.single, data)


class Spelling:
    """The ids of one answer: feed it text, in any pieces."""

    def __init__(self, retokenizer: Retokenizer) -> None:
        self._retokenizer = retokenizer
        self._first = True

    def feed(self, text: str) -> list[int]:
        """The ids of this text; those of all feeds together decode to all the text."""
        ids = self._retokenizer.spell(text, self._first)
        if ids:
            self._first = False
        return ids

    def follow(self) -> None:
        """Ids from elsewhere went out: the next text doesn't begin the answer."""
        self._first = False


def _character_length(lead: int) -> int:
    """How many bytes the UTF-8 character with this first byte has (RFC 3629)."""
    if lead < 0x80:
        return 1
    if lead < 0xE0:
        return 2
    return 3 if lead < 0xF0 else 4
