"""A server that says any bytes, for what no HTTP library would send."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

from exo_kit.kit.server.client import Client

Say = Callable[[asyncio.StreamWriter], Awaitable[None]]


class RawServer:
    """Answers the requests that it hears with the next of its answers, the last one for ever."""

    def __init__(self, *answers: bytes | Say) -> None:
        self.url = ""
        self.heard: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.most_open = 0
        self.sent = 0  # bytes
        self.tasks: set[asyncio.Task[None] | None] = set()
        self._answers = list(answers)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it is closed."""
        self.tasks.add(asyncio.current_task())
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    await self._answer(await self._request(reader), writer)
        finally:
            self.open -= 1
            writer.close()
            self.tasks.discard(asyncio.current_task())

    async def ended(self) -> None:
        """Cut every connection."""
        tasks = [task for task in self.tasks if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _request(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return head + await reader.readexactly(length)

    async def _answer(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        self.heard.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if callable(answer):
            await answer(writer)
        else:
            writer.write(answer)
            await writer.drain()

    async def endless(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Say the same for ever."""
        while True:
            writer.write(data)
            await writer.drain()
            self.sent += len(data)


@asynccontextmanager
async def serving(raw: RawServer) -> AsyncIterator[RawServer]:
    """Serve on a free loopback port."""
    server = await asyncio.start_server(raw.connected, "127.0.0.1", 0)
    raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield raw
    finally:
        server.close()
        await raw.ended()


def http(body: bytes, status: str = "200 OK", *headers: str, close: bool = False) -> bytes:
    """One whole HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    lines += ["Connection: close"] if close else []
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


OK = http(b'{"fine": 1}')


async def lines_of(client: Client) -> list[bytes]:
    """The lines that a client reads of a stream."""
    async with aclosing(client.lines("/x", {})) as lines:
        return [line async for line in lines if line.strip()]
