"""HTTP to the server: bounded in every direction, with errors that a user can act on."""

import asyncio
import json
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from .address import clean, origin
from .settings import Settings

if TYPE_CHECKING:
    import aiohttp

CONNECTIONS = 64  # at once; a request more waits for one of them
# Some servers close an idle connection after 5 s: one that is about to be closed isn't used again.
_IDLE_SECONDS = 3.0
LINE = 2**20  # bytes of one event
BODY = 2**24  # bytes of one whole reply
STREAM = 2**26  # bytes of one streamed answer
REFUSAL = 2**16  # bytes of a refused stream that are read
_CLEANED = 4096  # characters of a page that are looked at for its words
_DEPTH = 4  # of objects within an error
# Where servers put the words of an error, the best first.
_WORDS = (
    "error", "message", "detail", "details", "msg", "errors", "error_message", "description",
    "reason", "text", "title", "type", "error_type",
)  # fmt: skip
_PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
_TAG = re.compile(r"<[^<>]*>")


class ServerError(RuntimeError):
    """The server is not there, refused, or broke off; the text says which and what it said."""


class Refused(ServerError):
    """A status that is no success. wait: the seconds after which the server may be asked again."""

    def __init__(self, sentence: str, status: int, words: str, wait: float | None) -> None:
        super().__init__(sentence)
        self.status, self.words, self.wait = status, words, wait


@dataclass(frozen=True)
class Reply:
    """A whole answer; `json` is None where the body is none. wait: as the server asks, seconds."""

    status: int
    json: Any
    text: str
    wait: float | None = None

    def words(self) -> str:
        """What the server says, short: the JSON's error, or the text without HTML."""
        if isinstance(self.json, dict) and self.json:
            return words(self.json)
        return clean(_TAG.sub(" ", self.text[:_CLEANED])) or "nothing"


def words(event: Any) -> str:
    """What a server's JSON says of an error, in whichever member; else the JSON itself."""
    return clean(_words(event) or json.dumps(event)[:_CLEANED])


def _words(value: Any, depth: int = 0) -> str:
    if isinstance(value, str) or depth > _DEPTH:
        return value if isinstance(value, str) else ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_words(item, depth + 1) for item in value)))
    if not isinstance(value, dict):
        return ""
    text = next((part for key in _WORDS if (part := _words(value.get(key), depth + 1))), "")
    place = value.get("loc")  # of a field that was refused, as FastAPI names it
    return f"{'.'.join(map(str, place))}: {text}" if isinstance(place, list) and text else text


class Client:
    """One session for everything that is asked of one server; close() ends it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._free = asyncio.Semaphore(CONNECTIONS)

    async def get(self, path: str) -> Reply:
        """GET. Raises ServerError where no answer comes."""
        return await self._whole("GET", path, None, self.settings.connect_seconds * 2)

    async def post(self, path: str, body: Any, seconds: float) -> Reply:
        """POST JSON, within so many seconds. Raises ServerError where no answer comes."""
        return await self._whole("POST", path, body, seconds)

    async def _whole(self, method: str, path: str, body: Any, seconds: float) -> Reply:
        async with self._answer(method, path, body, seconds) as response:
            return _reply(response, await self._read(response, path, BODY))

    async def _read(self, response: "aiohttp.ClientResponse", path: str, most: int) -> bytes:
        data = bytearray()
        async for part in response.content.iter_any():
            data += part
            if len(data) > most:
                raise self._too_long(path, most)
        return bytes(data)

    async def lines(self, path: str, body: Any) -> AsyncGenerator[bytes, None]:
        """The lines of a streamed POST, empty ones too, while bytes keep coming."""
        async with self._answer("POST", path, body, None) as response:
            if response.status != 200:
                reply = _reply(response, await self._read(response, path, REFUSAL))
                raise self.refused(path, reply)
            left, held = STREAM, bytearray()
            async for data in response.content.iter_any():
                left -= len(data)
                held += data
                if left < 0 or len(held) > LINE + len(data):
                    raise self._too_long(path, STREAM if left < 0 else LINE)
                if b"\n" not in data:
                    continue
                *lines, held = held.split(b"\n")
                for line in lines:
                    yield bytes(line)
            if held:
                yield bytes(held)

    def refused(self, path: str, reply: Reply) -> Refused:
        """The sentence on a reply that is none."""
        words = self.settings.without_secrets(reply.words())
        sentence = f"{self.name(path)} answered {reply.status}: {words}"
        return Refused(sentence, reply.status, words, reply.wait)

    def name(self, path: str) -> str:
        """A path of the server, as a sentence may show it."""
        return f"{self.settings.address.origin}{path}"

    def _too_long(self, path: str, most: int) -> ServerError:
        return ServerError(f"{self.name(path)} sent more than {most} bytes at once; it was cut off")

    def _absent(self, path: str, why: str) -> ServerError:
        if "certificate" in why:
            return ServerError(f"{self.name(path)} is not asked: {why}")
        advice = f"start it, or set {self.settings.url_name}"
        if proxy := next((name for name in _PROXIES if os.environ.get(name)), None):
            advice += f"; {proxy} is not used, the server is asked directly"
        return ServerError(f"no server at {self.name(path)} ({why}); {advice}")

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, body: Any, seconds: float | None
    ) -> AsyncIterator["aiohttp.ClientResponse"]:
        import aiohttp

        from .connector import reason

        response = None
        await self._free.acquire()
        try:
            response = await self._sent(method, path, body, seconds)
            self._check_head(path, response)
            yield response
        except aiohttp.ConnectionTimeoutError as error:
            tls = self.settings.address.url.startswith("https:")
            hint = "; where it speaks no TLS, write http://" if tls else ""
            raise self._absent(path, f"it does not answer{hint}") from error
        except TimeoutError as error:
            raise ServerError(
                f"{self.name(path)} was silent for too long; see the server's log"
            ) from error
        except aiohttp.ClientConnectorError as error:
            raise self._absent(path, reason(error)) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            cause = self.settings.without_secrets(str(error) or repr(error))
            plain = response is None and self.settings.address.url.startswith("http:")
            hint = "; where it speaks TLS, write https://" if plain else ""
            raise ServerError(
                f"{self.name(path)} broke the connection off: {cause}{hint}"
            ) from error
        finally:
            if response is not None:
                response.close()  # where all was read, its connection is free already
            self._free.release()

    async def _sent(
        self, method: str, path: str, body: Any, seconds: float | None
    ) -> "aiohttp.ClientResponse":
        """Send, once more where a connection that was kept turns out to be closed."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(
            total=seconds,
            sock_connect=self.settings.connect_seconds,
            sock_read=self.settings.silence_seconds if seconds is None else None,
        )
        url, secret = f"{self.settings.address.url}{path}", self.settings.authorization()
        for _ in range(CONNECTIONS):
            context = {"reused": False}
            try:
                return await self._open().request(
                    method, url, json=body, timeout=timeout, allow_redirects=False,
                    headers={"Authorization": secret} if secret else None,
                    trace_request_ctx=context,
                )  # fmt: skip
            except (
                aiohttp.ServerDisconnectedError,
                aiohttp.ClientConnectionResetError,  # it was closing when it was written to
                aiohttp.ClientOSError,
            ):
                if not context["reused"]:
                    raise
        raise ServerError(f"{self.name(path)} closes every connection")

    def _check_head(self, path: str, response: "aiohttp.ClientResponse") -> None:
        """Refuse what would lead elsewhere, or grow."""
        if 300 <= response.status < 400:
            place = origin(response.headers.get("Location", "")) or "nowhere"
            raise ServerError(
                f"{self.name(path)} answered {response.status}, a redirect to {place}. It is not "
                f"followed: it would take the prompt there. Set {self.settings.url_name} to where "
                "the server is"
            )
        coding = response.headers.get("Content-Encoding", "identity")
        if coding.lower() not in ("", "identity"):
            raise ServerError(
                f"{self.name(path)} answered in {clean(coding)!r}, compressed, which nobody asked "
                "for; turn compression off at the server, or in the proxy before it"
            )

    def _open(self) -> "aiohttp.ClientSession":
        if self._session is None:
            import aiohttp

            from .connector import Connector

            traced = aiohttp.TraceConfig()
            cast(Any, traced.on_connection_reuseconn).append(_reused)
            self._session = aiohttp.ClientSession(
                connector=Connector(limit=0, keepalive_timeout=_IDLE_SECONDS),
                headers={"Accept-Encoding": "identity"},
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=2**20,
                trace_configs=[traced],
            )
        return self._session

    async def close(self) -> None:
        """End every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            await asyncio.sleep(0)  # the transports close in the loop's next round


async def _reused(_: Any, context: Any, __: Any) -> None:
    context.trace_request_ctx["reused"] = True


def _reply(response: "aiohttp.ClientResponse", body: bytes) -> Reply:
    text, parsed = body.decode("utf-8", "replace"), None
    with suppress(ValueError, RecursionError):
        parsed = json.loads(text)
    return Reply(response.status, parsed, text, _wait(response.headers.get("Retry-After", "")))


def _wait(header: str) -> float | None:
    """The seconds of a Retry-After; one with a date is taken for none."""
    return float(header) if header.isascii() and header.isdigit() and len(header) < 6 else None
