"""`generate`: answers one prompt, text as it comes."""

import argparse
import time
from contextlib import aclosing

from ..core.worker import in_thread
from .session import Session, opened
from .telling import show


async def run(arguments: argparse.Namespace) -> int:
    """Answer the prompt; on a terminal, say last how fast."""
    async with opened(arguments) as session:
        request = await session.request(arguments)
        session.progress.say(f"reading a prompt of {len(request.ids)} tokens")
        ids, texts, times, finish = 0, list[str](), list[float](), ""
        try:
            async with aclosing(session.runner.answer(request)) as answer:
                async for piece in answer:
                    if piece.text:
                        session.progress.stop()
                        show(piece.text)
                    if piece.text or piece.ids:
                        times.append(time.perf_counter())
                    ids, finish = ids + len(piece.ids), piece.finish or ""
                    texts.append(piece.text)
        finally:
            session.progress.stop()
            if any(texts):
                show("\n")  # an error behind half an answer has its own line
        if session.progress.terminal:
            count = ids or await _counted(session, "".join(texts))
            session.progress.end(_summary(count, times, finish == "length"))
    return 0


async def _counted(session: Session, text: str) -> int:
    """The tokens of an answer that came as text alone."""
    return len(await in_thread(lambda: session.tokenizer.encode(text)))


def _summary(count: int, times: list[float], cut: bool) -> str:
    """How many tokens, how fast, and whether there would be more."""
    seconds = times[-1] - times[0] if times else 0.0
    rate = f", {(count - 1) / seconds:.1f} tokens/s" if count > 1 and seconds > 0 else ""
    return f"{count} tokens{rate}" + (", cut at --max-tokens" if cut else "")
