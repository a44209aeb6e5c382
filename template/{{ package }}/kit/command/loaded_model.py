"""What `generate`, `chat` and `bench` share: a loaded engine, and the request for it."""

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, fields
from importlib import import_module
from itertools import count, cycle, islice
from typing import Any, cast

from ..cards import Cards, Model
from ..contract import Backend, Layers, Messages, Request, Sampling
from ..engine.engine import Engine
from ..engine.thread import in_thread
from ..plugin import Plugin
from ..repository.files import tokenizer_here
from ..text.chat_template import TemplateError, compiled, render
from ..text.tokenizer import Tokenizer
from .interrupt import on_exit
from .model_files import Files, named, of_folder, temporary_folder
from .output import CommandError, sentence
from .progress import Progress

TEMPLATE_SECONDS = 10.0  # a template is foreign code, and may loop; its process starts first
CLOSE_SECONDS = 10.0  # less after a Ctrl-C: see interrupt.py
_NUMBERS = count(1)  # of requests
_EMPTY = "The prompt is empty. Ask something."


@dataclass(frozen=True)
class Session:
    """An engine with a loaded model. name: what messages call it."""

    engine: Engine
    tokenizer: Tokenizer
    model: Model
    name: str
    progress: Progress

    async def request(
        self, arguments: argparse.Namespace, messages: Messages | None = None
    ) -> Request:
        """What the command line asks; in a conversation, with these messages."""
        prompt: str = getattr(arguments, "prompt", "")
        tools, thinking = (getattr(arguments, name, None) for name in ("tools", "thinking"))
        if messages is None:
            messages = [{"role": "user", "content": prompt}]
        raw = arguments.raw or self.tokenizer.chat_template is None
        if raw and tools:
            raise CommandError("Tools stand in a chat template, which --raw and some models lack.")
        if raw:
            prompt = "\n".join(message["content"] for message in messages)
        else:
            prompt = await self._templated(messages, tools, thinking)
        ids = await in_thread(lambda: self.tokenizer.encode_prompt(prompt, plain=raw))
        if not ids:
            raise CommandError(_EMPTY)
        if length := getattr(arguments, "prompt_tokens", None):
            ids, raw = list(islice(cycle(ids), length)), True
            prompt = self.tokenizer.decode(ids)
        return Request(
            f"command {next(_NUMBERS)}",
            prompt,
            tuple(ids),
            arguments.max_tokens,
            _sampling(arguments),
            tuple(getattr(arguments, "stop", ())),
            None if raw else list(messages),
            tools,
            thinking,
        )

    async def _templated(
        self, messages: Messages, tools: list[dict[str, Any]] | None, thinking: bool | None
    ) -> str:
        """The prompt as exo would send it: inside the model's chat template."""
        tokenizer, answers = self.tokenizer, self.engine.executor.answers
        source = tokenizer.chat_template or ""

        def rendered() -> str:
            template = compiled(source)
            # A server has a template of its own, which may take tools where this one does not.
            taken = tools if template.takes_tools or not answers else None
            options: dict[str, Any] = {"tools": taken, "enable_thinking": thinking}
            return render(template, messages, tokenizer.special_tokens, **options)

        try:
            return await asyncio.wait_for(in_thread(rendered), TEMPLATE_SECONDS)
        except TimeoutError:
            fault = f"takes longer than {TEMPLATE_SECONDS:.0f} s for this prompt"
        except TemplateError as error:
            fault = f"refuses this prompt ({error})"
        except Exception as error:
            fault = f"fails with this prompt ({sentence(error)})"
        raise CommandError(f"The model's chat template {fault}. --raw sends it as it is.")

    async def encode(self, text: str) -> list[int]:
        """The ids of a text, which may be long."""
        return await in_thread(lambda: self.tokenizer.encode(text))


def _sampling(arguments: argparse.Namespace) -> Sampling:
    """How the command line wants tokens to be chosen; `bench` has the temperature alone."""
    names = [member.name for member in fields(Sampling) if hasattr(arguments, member.name)]
    return Sampling(**{name: getattr(arguments, name) for name in names})


@asynccontextmanager
async def opened(
    plugin: Plugin,
    arguments: argparse.Namespace,
    wrap: Callable[[Backend], Backend] = lambda own: own,
    reuses: bool = True,
) -> AsyncIterator[Session]:
    """Load the model that the command line names, and give the device back at the end.

    wrap: gives what the engine drives in place of the backend's class. reuses: as the engine has
    it.
    """
    if arguments.raw and not getattr(arguments, "prompt", "chat"):
        raise CommandError(_EMPTY)
    progress = Progress()
    with ExitStack() as stack:
        stack.enter_context(on_exit(progress.stop))
        engine = Engine(wrap(plugin.load_backend()), reuses=reuses)
        files = await _chosen(plugin.models, arguments, progress, stack)
        if files.given and not engine.executor.files:
            raise CommandError(
                "This plugin's backend reads no files: there is no use for a folder or for random "
                "weights. Give --model one of its ids."
            )
        model = files.model
        progress.say(f"loading {files.name}")
        try:
            if engine.executor.answers and not files.given:
                await _reach(engine, model.repository)
            await engine.load(Layers(files.name, 0, model.layers - 1, model.layers), files)
            if getattr(arguments, "random_weights", None):
                progress.end("What comes is noise: the weights are random.")
            yield Session(engine, cast(Tokenizer, engine.tokenizer), model, files.name, progress)
        finally:
            await engine.close(CLOSE_SECONDS)


async def _reach(engine: Engine, repository: str) -> None:
    """Look for the server before a tokenizer is fetched: without it that would be for nothing."""
    if await in_thread(lambda: tokenizer_here(repository)) is None:
        await engine.executor.check()


async def _chosen(
    models: Cards, arguments: argparse.Namespace, progress: Progress, stack: ExitStack
) -> Files:
    """The model that the command line names; one of random weights is made in a folder."""
    if not (random := getattr(arguments, "random_weights", None)):
        return named(models, arguments.model, progress)
    folder = stack.enter_context(temporary_folder())
    await in_thread(lambda: import_module(random).write_checkpoint(folder))
    return of_folder(folder, "random weights", progress)
