"""What `generate` and `bench` share: a loaded runner, and the request that is asked of it."""

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from typing import cast

from ..core.chat_template import compiled, render
from ..core.contract import Backend, Layers, Messages, Request
from ..core.models import Model
from ..core.runner import Runner
from ..core.tokenizer import Tokenizer
from ..core.worker import in_thread
from .ending import CLOSE_SECONDS, undone
from .progress import Progress
from .source import FolderSource, chosen
from .telling import CommandError, sentence

TEMPLATE_SECONDS = 2.0  # a template is foreign code, and may loop
_CLOSE_SECONDS = 10.0


@dataclass(frozen=True)
class Session:
    """A runner with a loaded model."""

    runner: Runner
    tokenizer: Tokenizer
    model: Model
    progress: Progress

    async def request(self, arguments: argparse.Namespace) -> Request:
        """What the command line asks."""
        prompt, messages = arguments.prompt, [{"role": "user", "content": arguments.prompt}]
        if arguments.raw or self.tokenizer.chat_template is None:
            messages = []
        else:
            prompt = await _templated(self.tokenizer, messages)
        ids = await in_thread(lambda: self.tokenizer.encode(prompt))
        if not ids:
            raise CommandError("The prompt is empty. Ask something.")
        if length := getattr(arguments, "prompt_tokens", None):
            ids = list(islice(cycle(ids), length))
            prompt, messages = self.tokenizer.decode(ids), []

        async def read() -> Messages:
            return messages

        return Request(
            "command",
            prompt,
            tuple(ids),
            arguments.max_tokens,
            arguments.temperature,
            stop=tuple(getattr(arguments, "stop", ())),
            read=read if messages else None,
        )


async def _templated(tokenizer: Tokenizer, messages: Messages) -> str:
    """The prompt as exo would send it: inside the model's chat template."""
    source = tokenizer.chat_template or ""

    def rendered() -> str:
        return render(compiled(source), messages, tokenizer.special_tokens)

    try:
        return await asyncio.wait_for(in_thread(rendered), TEMPLATE_SECONDS)
    except TimeoutError as error:
        raise CommandError(
            f"The model's chat template takes longer than {TEMPLATE_SECONDS:.0f} s for this "
            "prompt. --raw sends it as it is."
        ) from error
    except Exception as error:
        raise CommandError(
            f"The model's chat template refuses this prompt ({sentence(error)}). "
            "--raw sends it as it is."
        ) from error


def own_backend() -> Backend:
    """The class of backend.py; imported late, as what it needs may not be installed."""
    from ...backend import Backend as Own

    backend: Backend = Own
    return backend


@asynccontextmanager
async def opened(
    arguments: argparse.Namespace, made: Callable[[Backend], Backend] = lambda own: own
) -> AsyncIterator[Session]:
    """Load the model that the command line names, and give the device back at the end.

    made: what the runner is to drive in place of the backend's class.
    """
    progress = Progress()
    random = getattr(arguments, "random_weights", None)
    with undone(progress.stop):
        runner = Runner(made(own_backend()))
        async with chosen(arguments.model, random, progress) as source:
            if isinstance(source, FolderSource) and not runner.device.files:
                raise CommandError(
                    "This plugin's backend reads no files: there is no use for a folder or for "
                    "random weights. Give --model one of its ids."
                )
            model, seconds = source.model, _CLOSE_SECONDS
            progress.say(f"loading {model.id}")
            try:
                await runner.load(Layers(model.id, 0, model.layers - 1, model.layers), source)
                yield Session(runner, cast(Tokenizer, runner.tokenizer), model, progress)
            except asyncio.CancelledError:
                seconds = CLOSE_SECONDS
                raise
            finally:
                await runner.close(seconds)
