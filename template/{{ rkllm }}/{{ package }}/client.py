"""HTTP to the RKLLM server: short calls, and streams read line by line."""

import html
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from .settings import Settings

REPLY_SECONDS = 15.0  # for a call that makes the server do nothing
MOST_BYTES = 16 * 2**20  # of one reply, or of one line of a stream
SHOWN = 300  # characters of the server's words in an error


class ServerError(RuntimeError):
    """The server can't be used, or failed; the message says what it answered."""


class UnreachableError(ServerError):
    """There is no connection to the server."""


@dataclass(frozen=True)
class Reply:
    """What the server answered: json is None where the body is not JSON."""

    url: str
    status: int
    json: Any
    text: str

    @property
    def error(self) -> str | None:
        """What went wrong in the server's words; None for a 200 without an error in it."""
        said = error_in(self.json)
        if said is None and self.status != 200:
            said = shortened(self.text) or "nothing"
        return said

    def checked(self) -> "Reply":
        """The same reply.

        Raises:
            ServerError: the server says that it failed.
        """
        if self.error is not None:
            raise ServerError(f"{self.url} answered HTTP {self.status}: {self.error}")
        return self


class Client:
    """Talks to one server. Each call has its own connection: the servers close it anyway."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def get(self, path: str) -> Reply:
        """GET path. Any HTTP status is a reply; ServerError if there is none."""
        async with self._open("GET", path, None, total=REPLY_SECONDS) as response:
            return await _reply(self._url(path), response)

    async def post(
        self, path: str, payload: Mapping[str, Any], seconds: float = REPLY_SECONDS
    ) -> Reply:
        """POST JSON. Any HTTP status is a reply; ServerError if there is none in time."""
        async with self._open("POST", path, payload, total=seconds) as response:
            return await _reply(self._url(path), response)

    async def lines(self, path: str, payload: Mapping[str, Any]) -> AsyncGenerator[str, None]:
        """POST JSON and hand out the lines of the answer as they come, blank ones left out.

        Closing the generator early closes the connection.

        Raises:
            ServerError: a status other than 200, a broken or a silent stream.
        """
        async with self._open("POST", path, payload, total=None) as response:
            if response.status != 200:
                (await _reply(self._url(path), response)).checked()
                raise ServerError(f"{self._url(path)} answered HTTP {response.status}.")
            rest = bytearray()
            async for block in response.content.iter_any():
                rest += block
                if b"\n" in block:
                    *whole, last = rest.split(b"\n")
                    for line in whole:
                        if line := line.strip():
                            yield line.decode("utf-8", "replace")
                    rest = bytearray(last)
                elif len(rest) > MOST_BYTES:
                    raise ServerError(f"{self._url(path)} sent a line that is too long.")
            if rest := rest.strip():
                yield rest.decode("utf-8", "replace")

    def _url(self, path: str) -> str:
        """For messages: without the password that an address may carry."""
        return re.sub(r"//[^/@]*@", "//", self.settings.url) + path

    @asynccontextmanager
    async def _open(
        self, method: str, path: str, payload: Mapping[str, Any] | None, total: float | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request; what aiohttp raises, then or while the body is read, is a ServerError."""
        settings = self.settings
        timeout = aiohttp.ClientTimeout(
            total=total,
            connect=settings.connect_seconds,
            sock_connect=settings.connect_seconds,
            sock_read=settings.silence_seconds if total is None else None,
        )
        url = self._url(path)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(method, settings.url + path, json=payload) as response,
            ):
                yield response
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise UnreachableError(
                f"Can't connect to {url}: {_reason(error)}. Start the server there, "
                "or set RKLLM_SERVER_URL to where it is."
            ) from error
        except TimeoutError as error:
            waited = settings.silence_seconds if total is None else total
            setting = " (RKLLM_SILENCE_SECONDS)" if total is None else ""
            raise ServerError(f"{url} was silent for {waited:g} s{setting}.") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ServerError(f"{url} broke the connection: {_reason(error)}.") from error


def error_in(data: object) -> str | None:
    """The error that a JSON answer carries, or None: {"error": "text"}, {"error": {"message"}}."""
    if not isinstance(data, dict) or not data.get("error"):
        return None
    error = data["error"]
    if isinstance(error, dict) and error.get("message"):
        error = error["message"]
    return shortened(error if isinstance(error, str) else json.dumps(error))


def shortened(text: str) -> str:
    """Text for an error: without HTML, on one line, not long."""
    if re.search(r"<(!doctype|html|body|h1|p)\b", text, re.IGNORECASE):
        text = re.sub(r"<(script|style)\b.*?</\1\s*>", " ", text, flags=re.DOTALL | re.IGNORECASE)
        text = html.unescape(re.sub(r"<[^>]*>", " ", text))
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


async def _reply(url: str, response: aiohttp.ClientResponse) -> Reply:
    body = bytearray()
    async for block in response.content.iter_any():
        body += block
        if len(body) > MOST_BYTES:
            raise ServerError(f"{url} sent a reply that is too long.")
    text = body.decode("utf-8", "replace")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    return Reply(url, response.status, data, text)


def _reason(error: BaseException) -> str:
    return shortened(str(error)).rstrip(".") or type(error).__name__
