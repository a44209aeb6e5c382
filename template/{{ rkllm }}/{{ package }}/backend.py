"""A Rockchip NPU behind an rkllama or OpenAI-compatible server."""

import asyncio
import contextlib
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .answer import Answer
from .client import Client, ServerError
from .dialects import Dialect, choose_model, probe
from .messages import PromptReader
from .models import MODELS
from .retokenize import Retokenizer
from .settings import Settings
from .tokenizer import Tokenizer

ABANDONED_SECONDS = 5.0  # exo asks for the next id at once; after this it is not coming back

_log = logging.getLogger(__name__)
_PLAIN = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


class Backend:
    """Runs whole models: an .rkllm file can't be cut into layers.

    The server takes one request at a time and knows no cancel; whatever a request that exo has
    left behind still makes is read and dropped, for a bounded time.
    """

    whole_model = True
    needs_files = False
    takes_text = True

    def __init__(self) -> None:
        self._server: Dialect | None = None
        self._settings: Settings | None = None
        self._model = ""
        self._tokenizer: Tokenizer | None = None
        self._spell: Retokenizer | None = None
        self._prompts: PromptReader | None = None
        self._answers: dict[str, Answer] = {}
        self._reading: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._stale = False

    async def load(self, shard: Any, path: Path | None, tokenizer: Tokenizer) -> None:
        """Find the server's model for this id and load it there. Raises ServerError."""
        await self.close()
        self._settings = Settings.from_env(os.environ)
        self._server = await probe(Client(self._settings))
        names = await self._server.models()
        repo = next(iter(MODELS.get(shard.model_id, {"repo": {"": ""}})["repo"].values()))
        self._model = self._settings.model or choose_model(shard.model_id, repo, names)
        if self._settings.model and self._settings.model not in names:
            raise ServerError(
                f"RKLLM_MODEL is {self._model!r}, but the server has: {', '.join(names) or 'none'}"
            )
        self._tokenizer = tokenizer
        self._spell = await asyncio.to_thread(Retokenizer, tokenizer.fast)
        template = tokenizer.chat_template or _PLAIN
        self._prompts = await asyncio.to_thread(PromptReader, template, tokenizer.special_tokens)
        await self._server.load(self._model)
        self._stale = False

    async def forward(self, request_id: str, x: NDArray[Any]) -> NDArray[np.int64]:
        """The answer's next id, (1, 1) int64; x is the prompt's bytes (1, N) uint8, later ids."""
        answer = self._answers.get(request_id)
        if answer is None:
            answer = self._start(request_id, self._prompt(x))
        return np.array([[await answer.next_id()]], dtype=np.int64)

    def _prompt(self, x: NDArray[Any]) -> str:
        if x.dtype == np.uint8:
            return x.tobytes().decode("utf-8", "surrogatepass")
        if x.shape[-1] == 1:
            raise ServerError("this answer has ended or was dropped; send the request again")
        assert self._tokenizer is not None
        return self._tokenizer.decode(x.reshape(-1))

    def _start(self, request_id: str, prompt: str) -> Answer:
        assert self._spell is not None
        assert self._prompts is not None
        answer = Answer(self._spell.start())
        messages = self._prompts.read(prompt)
        self._answers[request_id] = answer
        answer.task = asyncio.create_task(self._read(answer, messages))
        self._reading.add(answer.task)
        answer.task.add_done_callback(self._reading.discard)
        return answer

    async def _read(self, answer: Answer, messages: list[dict[str, str]]) -> None:
        """Read one answer to its end, when its turn has come."""
        try:
            self._waiting += 1
            try:
                await self._turn.acquire()
            finally:
                self._waiting -= 1
            try:
                answer.reading = True
                await self._stream(answer, messages)
            finally:
                self._turn.release()
        except asyncio.CancelledError:
            answer.fail(ServerError("this answer was cut: it was dropped, or another model loaded"))
            raise
        except Exception as error:
            answer.fail(error)

    async def _stream(self, answer: Answer, messages: list[dict[str, str]]) -> None:
        assert self._server is not None
        assert self._settings is not None
        assert self._tokenizer is not None
        if self._stale:
            await self._server.recover(self._model)
        self._stale = True  # until the stream has come to its end
        chunks = self._server.stream(self._model, messages, self._settings.max_tokens)
        count, final = 0, False
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                answer.feed(chunk)
                count, final = chunk.count or count, chunk.final or final
                self._leave_abandoned(answer)
        if self._server.ends_with_event and not final:
            raise ServerError(
                "the server's stream stopped without its last event: the answer is not whole"
            )
        answer.finish(self._tokenizer.eos_token_id)
        # A length stop can leave its last piece to open the next answer: load anew before that.
        self._stale = count >= self._settings.max_tokens
        if self._stale:
            _log.warning(
                "the answer reached the server's limit of %d tokens; set RKLLM_MAX_TOKENS above "
                "exo's --max-generate-tokens",
                self._settings.max_tokens,
            )

    def _leave_abandoned(self, answer: Answer) -> None:
        """Give way to a waiting request when exo has stopped asking for this one."""
        if self._waiting and answer.unread_seconds() > ABANDONED_SECONDS:
            for request_id in [i for i, a in self._answers.items() if a is answer]:
                self.drop(request_id)

    async def forget(self, request_id: str) -> None:
        """Drop a request; see drop()."""
        self.drop(request_id)

    def drop(self, request_id: str) -> None:
        """What the server still sends is read and dropped for drain_seconds, then cut."""
        answer = self._answers.pop(request_id, None)
        if answer is None or answer.task is None or answer.task.done():
            return
        assert self._settings is not None
        seconds = self._settings.drain_seconds if answer.reading else 0.0
        timer = asyncio.get_running_loop().call_later(seconds, answer.task.cancel)
        answer.task.add_done_callback(lambda _: timer.cancel())

    async def close(self) -> None:
        """Cut what is still being read, dropped answers too; the server keeps its model.

        Where that leaves the server with a broken answer, its next client must not pay for it.
        """
        self._answers.clear()
        tasks = list(self._reading)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._stale and self._server is not None:
            self._stale = False
            await self._server.recover(self._model)

    async def check(self) -> str:
        """The server's kind, version and models. Raises ServerError."""
        settings = Settings.from_env(os.environ)
        server = await probe(Client(settings))
        names = ", ".join(await server.models()) or "no models"
        return f"{server.name} {await server.version()} at {settings.shown_url}: {names}"
