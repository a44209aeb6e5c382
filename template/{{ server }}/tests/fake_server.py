"""The frame of a server for tests: a thread, a port, answers by script, and faults on demand."""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
DEFAULT = ("Hello ", "there, ", "this ", "is ", "the ", "device.")


class FakeServer:
    """Runs on a free loopback port, in a thread with a loop of its own.

    A subclass says in play() what each path answers. `fault` is for the next answer that can have
    it, and happens once. `script()` queues an answer, a list of pieces.
    """

    def __init__(self, models: Sequence[str], answer: Sequence[str] = DEFAULT) -> None:
        self.models = list(models)
        self.fault = ""
        self.hanging: set[str] = set()  # paths that never answer
        self.tokens_per_second: float | None = None
        self.default_answer = list(answer)
        self.requests: list[dict[str, Any]] = []
        self.max_concurrent = 0
        self.open_connections = 0
        self.is_cut = False
        self._transports: list[asyncio.Transport] = []
        self.url = ""
        self._answers: deque[list[str]] = deque()
        self._running = 0
        self._loop = asyncio.new_event_loop()
        self._quit = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    async def play(
        self, request: web.Request, path: str, body: dict[str, Any]
    ) -> web.StreamResponse:
        """Answer one request."""
        raise NotImplementedError

    def script(self, pieces: list[str] | str) -> None:
        """Queue an answer."""
        self._answers.append([pieces] if isinstance(pieces, str) else list(pieces))

    def next_answer(self) -> list[str]:
        """The pieces of the next answer."""
        return self._answers.popleft() if self._answers else list(self.default_answer)

    def take(self, *faults: str) -> str:
        """The fault, if it is one of these; it happens once."""
        if self.fault not in faults:
            return ""
        taken, self.fault = self.fault, ""
        return taken

    def start(self) -> "FakeServer":
        """Serve; returns when the port is open."""
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the test server did not start")
        return self

    def stop(self) -> None:
        """End every connection and the thread; once is enough."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._quit.set)
            self._thread.join(10)

    def cut(self) -> None:
        """Drop every connection, in the middle of its answer, and every new one."""

        def drop() -> None:
            self.is_cut = True
            for transport in self._transports:
                transport.abort()

        self._loop.call_soon_threadsafe(drop)

    def wait(self) -> None:
        """Serve until the process is ended."""
        self._thread.join()

    async def hang(self) -> None:
        """Say nothing more."""
        await self._quit.wait()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application(middlewares=[self._middleware])
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.05, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await self._quit.wait()
        await runner.cleanup()

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.open_connections += 1
        if request.transport is not None:
            self._transports.append(request.transport)
            if self.is_cut:
                request.transport.abort()
        try:
            response = await handler(request)
            response.force_close()
            return response
        finally:
            self.open_connections -= 1

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body: dict[str, Any] = {}
        if request.method == "POST":
            body = await request.json()
            self.requests.append(body)
        if request.path in self.hanging:
            await self.hang()
        return await self.play(request, request.path, body)

    async def stream(
        self,
        request: web.Request,
        content_type: str,
        events: Sequence[bytes],
        last: bytes,
        fault: str = "",
    ) -> web.StreamResponse:
        """Stream events at the set pace.

        Faults: "cut" and "silence" in the middle, "reset" at the end, "no_final" without `last`.
        """
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        self._running += 1
        self.max_concurrent = max(self.max_concurrent, self._running)
        try:
            for n, event in enumerate(events):
                if self.tokens_per_second:
                    await asyncio.sleep(1 / self.tokens_per_second)
                if fault == "cut" and n == len(events) // 2:
                    return _reset(request, response)
                if fault == "silence" and n == len(events) // 2:
                    await self.hang()
                await response.write(event)
                self.sent(n + 1)
            if fault == "reset":
                return _reset(request, response)
            await response.write(b"" if fault == "no_final" else last)
            await response.write_eof()
            return response
        finally:
            self._running -= 1

    def sent(self, count: int) -> None:
        """So many events of the running stream are out."""


def _reset(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Drop the connection without the end of the chunked body."""
    if request.transport is not None:
        request.transport.abort()
    return response
