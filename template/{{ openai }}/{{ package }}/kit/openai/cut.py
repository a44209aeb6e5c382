"""Where an answer ends: at its end token, or at the limit, whatever the server sends behind."""

from dataclasses import replace

from ..contract import Piece
from ..text.tokenizer import Tokenizer

LONGEST = 512  # characters of a token; no vocabulary that is known has a longer one


class Cut:
    """Takes the pieces of one answer. started: whether it has had a word.

    in_ids: the answer is in ids; most: its tokens at most.
    """

    def __init__(self, tokenizer: Tokenizer, in_ids: bool, most: int) -> None:
        self.started = False
        self._tokenizer, self._in_ids, self._left = tokenizer, in_ids, most
        self._characters = most * LONGEST

    def feed(self, piece: Piece) -> Piece:
        """The piece, up to the answer's end; in ids where the answer is."""
        if piece.text and not piece.ids and self._in_ids:
            piece = replace(piece, ids=_ids(piece.text, self._tokenizer))
        whole = len(piece.logprobs) == len(piece.ids)
        piece = self._up_to_the_end(piece) if piece.ids else piece
        if len(piece.logprobs) != len(piece.ids):  # those of what was cut, or not of all
            piece = replace(piece, logprobs=piece.logprobs[: len(piece.ids)] if whole else ())
        self._left -= len(piece.ids)
        self._characters -= len(piece.text)
        self.started = self.started or bool(piece.ids or piece.text or piece.tool_calls)
        if self._characters < 0 and not piece.finish:
            return replace(piece, finish="length")
        return piece

    def _up_to_the_end(self, piece: Piece) -> Piece:
        ends, ids = self._tokenizer.eos_token_ids, piece.ids[: self._left + 1]
        at = next((n for n, i in enumerate(ids) if i in ends), None)
        if at is not None:
            return replace(piece, text="", ids=ids[:at], finish=piece.finish or "stop")
        if len(piece.ids) < self._left:
            return piece
        text = piece.text if len(piece.ids) == self._left else ""
        return replace(piece, text=text, ids=ids[: self._left], finish="length")


def _ids(text: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids of a character that came as text alone; none where they'd read otherwise behind."""
    before = tokenizer.encode("a")
    ids = tokenizer.encode(text)
    whole = tokenizer.decode([*before, *ids]) == tokenizer.decode(before) + text
    return tuple(ids) if whole else ()
