"""HTTP to the server, with errors that a user can act on."""

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .settings import Settings

if TYPE_CHECKING:
    import aiohttp

_SHOWN = 300  # characters of a server's words in an error


class ServerError(RuntimeError):
    """The server is not there, refused, or broke off; the text says which and what it said."""


@dataclass(frozen=True)
class Reply:
    """A whole answer; `json` is None where the body is none."""

    status: int
    json: Any
    text: str

    def said(self) -> str:
        """What the server said, short: the JSON's error, or the text without HTML."""
        if isinstance(self.json, dict) and "error" in self.json:
            error = self.json["error"]
            return str(error.get("message", error) if isinstance(error, dict) else error)[:_SHOWN]
        return " ".join(re.sub(r"<[^>]*>", " ", self.text).split())[:_SHOWN] or "nothing"


class Client:
    """One session a call: the servers close every connection, so nothing stays open."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def get(self, path: str) -> Reply:
        """GET. Raises ServerError where no answer comes."""
        return await self._whole("GET", path, None, self.settings.connect_seconds * 2)

    async def post(self, path: str, body: Any, seconds: float) -> Reply:
        """POST JSON, within so many seconds. Raises ServerError where no answer comes."""
        return await self._whole("POST", path, body, seconds)

    async def _whole(self, method: str, path: str, body: Any, seconds: float) -> Reply:
        async with self._answer(method, path, body, seconds) as response:
            text = await response.text(errors="replace")
        return _reply(response.status, text)

    async def lines(self, path: str, body: Any) -> AsyncGenerator[bytes]:
        """The lines of a streamed POST, however long it takes while bytes keep coming."""
        async with self._answer("POST", path, body, None) as response:
            if response.status != 200:
                reply = _reply(response.status, await response.text(errors="replace"))
                raise ServerError(f"{self._name(path)} answered {reply.status}: {reply.said()}")
            buffer = b""
            async for data in response.content.iter_any():
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield line
            if buffer.strip():
                yield buffer

    def _name(self, path: str) -> str:
        return f"{self.settings.shown_url}{path}"

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, body: Any, seconds: float | None
    ) -> AsyncIterator["aiohttp.ClientResponse"]:
        import aiohttp

        timeout = aiohttp.ClientTimeout(
            total=seconds,
            sock_connect=self.settings.connect_seconds,
            sock_read=self.settings.silence_seconds if seconds is None else None,
        )
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, read_bufsize=2**20) as session,
                session.request(method, f"{self.settings.url}{path}", json=body) as response,
            ):
                yield response
        except TimeoutError as error:
            raise ServerError(
                f"{self._name(path)} was silent for too long; see the server's log"
            ) from error
        except aiohttp.ClientConnectorError as error:
            raise ServerError(
                f"no server at {self._name(path)} ({error}); start it, or set RKLLM_SERVER_URL"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ServerError(
                f"{self._name(path)} broke the connection off: {str(error) or repr(error)}"
            ) from error


def _reply(status: int, text: str) -> Reply:
    try:
        return Reply(status, json.loads(text), text)
    except ValueError:
        return Reply(status, None, text)
