"""The backend of a Rockchip NPU: its runtime in this process, or a server in front of it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from pathlib import Path

from ..cards import Model
from ..contract import Piece, Request
from ..engine.thread import in_thread
from ..server.models import Served
from ..text.tokenizer import Tokenizer
from . import in_process
from .board import find_library, find_models, served
from .in_process import InProcess
from .server import ServerBackend
from .settings import Settings


def which(settings: Settings) -> tuple[str, str]:
    """ "runtime" or "server", and why."""
    if settings.backend != "auto":
        return settings.backend, f"RKLLM_BACKEND is {settings.backend}"
    if settings.has_server:
        return "server", "a setting names one"
    library = find_library(settings.library)
    if library is None:
        return "server", "there is no librkllmrt.so"
    return "runtime", f"{library} is here, and no setting names a server"


class RkllmBackend(ServerBackend):
    """An AnswerBackend (kit/contract.py): the runtime where which() says so, else a server."""

    unsupported = ("logprobs", "min_p")

    def __init__(self) -> None:
        super().__init__()
        self._runtime: InProcess | None = None

    async def load(self, model: Model, folder: Path | None, tokenizer: Tokenizer) -> None:
        """Make the model ready. Raises RuntimeLibraryError or ServerError."""
        await self.close()
        if which(self.settings())[0] == "server":
            await super().load(model, folder, tokenizer)
            return
        self._runtime = self._runtime or InProcess(self.settings, self.choose)
        await self._runtime.load(model, tokenizer)

    async def answer(self, request: Request) -> AsyncGenerator[Piece, None]:
        """One answer. Raises RuntimeLibraryError, ServerError or RequestError."""
        made = self._runtime.answer(request) if self._runtime else super().answer(request)
        async with aclosing(made) as pieces:
            async for piece in pieces:
                yield piece

    async def check(self) -> str:
        """Which of the two it is and why, its version and models."""
        settings = self.settings()
        what, why = which(settings)
        if what == "server":
            return f"{await super().check()} (a server: {why})"
        return f"{await in_thread(partial(in_process.check, settings))} (the runtime: {why})"

    async def names(self) -> list[Served]:
        """What the server or the board has."""
        settings = self.settings()
        if which(settings)[0] == "server":
            return await super().names()
        models = await in_thread(partial(find_models, settings.models))
        return await in_thread(partial(served, models))

    async def close(self) -> None:
        """Give everything back."""
        if self._runtime is not None:
            await self._runtime.close()
        await super().close()
