"""An answer's pieces as a host gets them: text of ids, stop texts, limits, and what it took."""

from dataclasses import replace

from ..contract import Piece, Request, Usage
from ..text.detokenizer import Detokenizer, StopTexts
from ..text.tokenizer import Tokenizer

PIECES_A_TOKEN = 4  # of text, at most: a server may cut a token's text, but not for ever


class Output:
    """What one request has been given so far.

    text: whether the host reads it; without, ids are decoded for stop texts alone.
    """

    def __init__(self, request: Request, tokenizer: Tokenizer, text: bool) -> None:
        self._request, self._ends = request, tokenizer.eos_token_ids
        self._stop = StopTexts(request.stop)
        self._decodes = text or bool(request.stop)
        self._detokenizer = Detokenizer.of(tokenizer)
        self._ids = self._reasoning = 0  # tokens
        self._texts = 0  # pieces of text without ids

    def feed(self, piece: Piece, reused: int) -> Piece | None:
        """What goes out for one more piece of a backend, if anything does.

        reused: tokens of the prompt that were not computed. The last piece is the one that has a
        finish, which may be earlier than the backend's.
        """
        piece = self._within_limits(self._before_the_end(piece))
        self._ids += len(piece.ids)
        self._texts += bool(piece.text and not piece.ids)
        if piece.thinking:
            self._reasoning += len(piece.ids) or 1
        text = piece.text or (self._detokenizer.feed(piece.ids) if self._decodes else "")
        finish = piece.finish
        if finish:
            text = self._stop.feed(text + self._detokenizer.rest(cut=finish == "length"))
            text += self._stop.rest()
        else:
            text = self._stop.feed(text)
        if self._stop.found:
            finish = "stop"
        if not (text or piece.ids or piece.tool_calls or finish):
            return None
        usage = piece.usage or (self._usage(reused) if finish else None)
        return replace(piece, text=text, finish=finish, usage=usage)

    def _before_the_end(self, piece: Piece) -> Piece:
        """A piece without its first end token, and what a server may have put behind it."""
        at = next((n for n, token in enumerate(piece.ids) if token in self._ends), None)
        return piece if at is None else replace(piece, ids=piece.ids[:at], finish="stop")

    def _within_limits(self, piece: Piece) -> Piece:
        """A server may give more than it was asked for: nothing of that is looked at."""
        most = self._request.max_tokens
        if self._ids + len(piece.ids) > most:
            return replace(piece, text="", ids=piece.ids[: most - self._ids], finish="length")
        if self._texts >= most * PIECES_A_TOKEN and piece.text and not piece.ids:
            return replace(piece, text="", finish="length")
        return piece

    def _usage(self, reused: int) -> Usage:
        prompt, completion = len(self._request.ids), self._ids + self._texts
        return Usage(prompt, completion, reused, self._reasoning)
