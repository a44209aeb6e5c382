"""`generate`: answers one prompt, text as it comes."""

import argparse

from ..plugin import Plugin
from .answer import Answer, counts, show_answer
from .loaded_model import opened


async def run(plugin: Plugin, arguments: argparse.Namespace) -> int:
    """Answer the prompt; on a terminal, say last what it took."""
    async with opened(plugin, arguments) as session:
        request = await session.request(arguments)
        answer = Answer()
        await show_answer(session, request, answer)
        session.progress.end(counts(answer))
    return 0
