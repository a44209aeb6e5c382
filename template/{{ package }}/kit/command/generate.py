"""`generate`: answers one prompt, text as it comes."""

import argparse
import time
from contextlib import aclosing

from ..contract import Piece
from ..plugin import Plugin
from ..text.reasoning import ReasoningMarks
from .loaded_model import opened
from .output import show


async def run(plugin: Plugin, arguments: argparse.Namespace) -> int:
    """Answer the prompt; on a terminal, say last how fast."""
    async with opened(plugin, arguments) as session:
        request = await session.request(arguments, tuple(arguments.stop))
        session.progress.say(f"reading a prompt of {len(request.ids)} tokens")
        pieces, times, thinking = list[Piece](), list[float](), ReasoningMarks(request.prompt)
        try:
            async with aclosing(session.engine.answer(request)) as answer:
                async for piece in answer:
                    times.append(time.perf_counter())
                    pieces.append(piece)
                    if text := thinking.feed(piece.text, piece.thinking, piece.finish):
                        session.progress.stop()
                        show(text)
        finally:
            session.progress.stop()
            text = "".join(piece.text for piece in pieces)
            if text and not text.endswith("\n"):
                show("\n")  # an error behind half an answer has a line of its own
        if session.progress.terminal:
            count = sum(len(piece.ids) for piece in pieces) or len(await session.encode(text))
            cut = ", cut at --max-tokens" if pieces and pieces[-1].finish == "length" else ""
            session.progress.end(f"{count} tokens{_rate(count, times)}{cut}")
    return 0


def _rate(count: int, times: list[float]) -> str:
    """How fast the tokens behind the first came."""
    seconds = times[-1] - times[0] if times else 0.0
    return f", {(count - 1) / seconds:.1f} tokens/s" if count > 1 and seconds > 0 else ""
