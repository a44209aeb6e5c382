"""`chat`: a conversation. Ctrl-C ends an answer; at the prompt it ends the chat, as Ctrl-D does."""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..contract import Messages, RequestError
from ..engine.thread import in_thread
from ..plugin import Plugin
from .answer import Answer, counts, show_answer
from .interrupt import instead, on_exit
from .loaded_model import Session, opened
from .output import CommandError, sentence, show

_PROMPT = "> "


async def run(plugin: Plugin, arguments: argparse.Namespace) -> int:
    """Answer line by line, until there are no more."""
    async with opened(plugin, arguments) as session:
        messages: Messages = []
        if arguments.system:
            messages.append({"role": "system", "content": arguments.system})
        with _terminal():
            session.progress.stop()
            while (line := await in_thread(_line)) is not None:
                if line.strip():
                    await _turn(session, arguments, messages, line)
    return 0


async def _turn(
    session: Session, arguments: argparse.Namespace, messages: Messages, line: str
) -> None:
    """Answer a line; both are in the messages then. What is refused is as if it was never said."""
    messages.append({"role": "user", "content": line})
    answer = Answer()
    try:
        request = await session.request(arguments, messages)
        task = asyncio.ensure_future(show_answer(session, request, answer))
        with instead(task.cancel), suppress(asyncio.CancelledError):
            await task
    except (CommandError, RequestError) as error:
        messages.pop()
        print(sentence(error), file=sys.stderr)
        return
    session.progress.end(counts(answer))
    message: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in answer.calls
        ]
    messages.append(message)


def _line() -> str | None:
    """The next line; None at the end. It waits for as long as a person does."""
    try:
        if sys.stdin.isatty():
            return input(_PROMPT)
        return line.rstrip("\n") if (line := sys.stdin.readline()) else None
    except EOFError:
        show("\n")
        return None


@contextmanager
def _terminal() -> Iterator[None]:
    """Lines can be edited; the terminal is as it was, wherever the chat is left."""
    if not sys.stdin.isatty():
        yield
        return
    with suppress(ImportError):
        import readline  # noqa: F401 - input() uses it
    try:
        import termios
    except ImportError:  # Windows
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    with on_exit(lambda: termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)):
        yield
