"""One answer as it comes: on stdout its text, on stderr a dim line of what it took."""

import json
import sys
import time
from contextlib import aclosing
from dataclasses import dataclass, field

from ..contract import Finish, Piece, Request, ToolCall, Usage
from .loaded_model import Session
from .output import show

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


@dataclass
class Answer:
    """What has come of it. text: without reasoning. times: of the pieces, time.perf_counter()."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    finish: Finish | None = None
    usage: Usage | None = None
    times: list[float] = field(default_factory=list)


async def show_answer(session: Session, request: Request, answer: Answer) -> None:
    """Show an answer while it comes; what has come is in `answer`, also where it is broken off."""
    session.progress.say(f"reading a prompt of {len(request.ids)} tokens")
    page = _Page()
    try:
        async with aclosing(session.engine.answer(request)) as pieces:
            async for piece in pieces:
                _note(answer, piece)
                if piece.text:
                    session.progress.stop()
                    page.write(piece.text, piece.thinking)
        for call in answer.calls:
            page.write_line(f"{call.name} {_one_line(call.arguments)}")
    finally:
        session.progress.stop()
        page.end()  # an error behind half an answer has a line of its own


def _note(answer: Answer, piece: Piece) -> None:
    answer.times.append(time.perf_counter())
    answer.text += "" if piece.thinking else piece.text
    answer.calls, answer.usage = piece.tool_calls, piece.usage
    answer.finish = piece.finish


def counts(answer: Answer) -> str:
    """What an answer took, on one line."""
    usage = answer.usage
    if usage is None:
        return "interrupted"
    count = usage.completion_tokens
    seconds = answer.times[-1] - answer.times[0]
    parts = [f"{count} tokens"]
    if count > 1 and seconds > 0:
        parts.append(f"{(count - 1) / seconds:.1f} tokens/s")
    if usage.reasoning_tokens:
        parts.append(f"{usage.reasoning_tokens} of them reasoning")
    if usage.reused_tokens:
        parts.append(f"{usage.reused_tokens} of {usage.prompt_tokens} of the prompt reused")
    if answer.finish == "length":
        parts.append("cut at --max-tokens")
    return ", ".join(parts)


def _one_line(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments), ensure_ascii=False)
    except (ValueError, RecursionError):
        return arguments


class _Page:
    """What is written on stdout. Reasoning is dim on a terminal, and stands in marks elsewhere."""

    def __init__(self) -> None:
        self._dims = sys.stdout.isatty()
        self._inside = False
        self._last = "\n"

    def write(self, text: str, thinking: bool) -> None:
        """One more text."""
        if thinking != self._inside:
            self._turn(thinking)
        show(text)
        self._last = text[-1]

    def write_line(self, text: str) -> None:
        """A line of its own."""
        self.end()
        self.write(text + "\n", thinking=False)

    def end(self) -> None:
        """End the line that has begun."""
        if self._inside:
            self._turn(thinking=False)
        if self._last != "\n":
            show("\n")
            self._last = "\n"

    def _turn(self, thinking: bool) -> None:
        self._inside = thinking
        if thinking:
            self._put(_DIM if self._dims else "<think>\n")
            return
        if self._last != "\n":
            show("\n")
        self._put(f"{_PLAIN}\n" if self._dims else "</think>\n\n")
        self._last = "\n"

    def _put(self, text: str) -> None:
        if self._dims:
            sys.stdout.write(text)  # which show() would make harmless
            sys.stdout.flush()
        else:
            show(text)
