"""An answer's pieces as a host gets them: text of ids, stop texts, limits, and what it took."""

from dataclasses import replace

from ..contract import Finish, Piece, Request, ToolCall, Usage
from ..text.answer_parser import AnswerParser
from ..text.detokenizer import Detokenizer, StopTexts
from ..text.tokenizer import Tokenizer

PIECES_A_TOKEN = 4  # of text, at most: a server may cut a token's text, but not for ever


class Output:
    """What one request has been given so far.

    text: whether the host reads it, with reasoning and calls of tools told apart; without, ids are
    decoded for stop texts alone.
    """

    def __init__(self, request: Request, tokenizer: Tokenizer, text: bool) -> None:
        self._request, self._ends = request, tokenizer.eos_token_ids
        self._stop = StopTexts(request.stop)
        self._decodes = text or bool(request.stop)
        self._detokenizer = Detokenizer.of(tokenizer)
        self._parser = AnswerParser(request) if text else None
        self._calls: tuple[ToolCall, ...] = ()  # that the backend gave
        self._ids = self._reasoning = 0  # tokens
        self._texts = 0  # pieces of text without ids
        self.finished = False

    def feed(self, piece: Piece, reused: int) -> list[Piece]:
        """What goes out for one more piece of a backend; one that is both kinds of text is two.

        reused: tokens of the prompt that were not computed. The last piece is the one that has a
        finish, which may be earlier than the backend's, and all calls of tools.
        """
        piece = self._within_limits(self._before_the_end(piece))
        self._ids += len(piece.ids)
        self._texts += bool(piece.text and not piece.ids)
        self._calls += piece.tool_calls
        text, finish = self._text(piece), "stop" if self._stop.found else piece.finish
        parts = self._parts(piece, text, last=bool(finish))
        if not (parts or piece.ids or finish):
            return []
        visible, thinking = parts[0] if parts else ("", piece.thinking)
        same = (piece.text, piece.thinking, piece.tool_calls, piece.finish)
        if same != (visible, thinking, (), None):  # a copy costs more than all else here
            piece = replace(piece, text=visible, thinking=thinking, tool_calls=(), finish=None)
        pieces = [piece]
        pieces += [Piece(visible, thinking=thinking) for visible, thinking in parts[1:]]
        if finish:
            pieces[-1] = self._last(pieces[-1], finish, piece.usage or self._usage(reused))
        return pieces

    def _last(self, piece: Piece, finish: Finish, usage: Usage) -> Piece:
        calls = self._calls + (self._parser.calls if self._parser is not None else ())
        if calls and finish == "stop":
            finish = "tool_calls"
        self.finished = True
        return replace(piece, finish=finish, usage=usage, tool_calls=calls)

    def _text(self, piece: Piece) -> str:
        """A piece's text up to a stop text."""
        text = piece.text or (self._detokenizer.feed(piece.ids) if self._decodes else "")
        if not piece.finish:
            return self._stop.feed(text)
        cut = piece.finish == "length"
        text = self._stop.feed(text + self._detokenizer.rest(cut=cut))
        return text + self._stop.rest()

    def _parts(self, piece: Piece, text: str, last: bool) -> list[tuple[str, bool]]:
        """What the host sees of a text, and whether it is reasoning."""
        tokens = len(piece.ids) or int(bool(piece.text))
        if self._parser is not None:
            parts = self._parser.feed(text, tokens, piece.thinking, last)
            self._reasoning = self._parser.reasoning_tokens
            return parts
        self._reasoning += tokens if piece.thinking else 0
        return [(text, piece.thinking)] if text else []

    def _before_the_end(self, piece: Piece) -> Piece:
        """A piece without its first end token, and what a server may have put behind it."""
        at = next((n for n, token in enumerate(piece.ids) if token in self._ends), None)
        return piece if at is None else _cut(piece, at, "stop")

    def _within_limits(self, piece: Piece) -> Piece:
        """A server may give more than it was asked for: nothing of that is looked at."""
        most = self._request.max_tokens
        if self._ids + len(piece.ids) > most:
            return replace(_cut(piece, most - self._ids, "length"), text="")
        if self._texts >= most * PIECES_A_TOKEN and piece.text and not piece.ids:
            return replace(piece, text="", finish="length")
        return piece

    def _usage(self, reused: int) -> Usage:
        prompt, completion = len(self._request.ids), self._ids + self._texts
        return Usage(prompt, completion, reused, self._reasoning)


def _cut(piece: Piece, most: int, finish: Finish) -> Piece:
    """A piece with so many of its ids, and what belongs to them."""
    return replace(piece, ids=piece.ids[:most], logprobs=piece.logprobs[:most], finish=finish)
