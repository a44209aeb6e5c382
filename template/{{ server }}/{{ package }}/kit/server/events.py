"""A server's stream of events, and what any server's JSON may hold.

Servers differ in how they say that an answer failed after its status 200: each shape of it that is
known, and each event that is none of an answer's, ends the answer with the server's words.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeVar, cast

from .address import clean
from .client import LINE, Client, Reply, ServerError, words

T = TypeVar("T")
Event = dict[str, Any]

KNOWN = frozenset({"choices", "usage"})  # members that an event of an answer has
_ALIVE = {"heartbeat", "keepalive", "keep-alive", "ping"}  # kinds of events that say nothing
_SHOWN = 200  # bytes of an event that are no JSON
_LINES = 256  # of one event
DONE = b"[DONE]"


class BrokenOffError(ServerError):
    """The server ended an answer within its stream. words: its own; status: as it says, if any."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(f"the server broke the answer off: {message}")
        self.words, self.status = message, status


class _Reader:
    """Puts the lines of a stream together to events (the HTML standard, "Server-sent events")."""

    def __init__(self) -> None:
        self.name = self.data = self.other = b""
        self._parsed: Event | None = None
        self._lines = 0
        self._raw = False  # an object without a field before it

    def feed(self, line: bytes) -> bool:
        """Take a line; whether it ends an event. Raises ServerError."""
        line = line.strip()
        field, _, value = line.partition(b":")
        if not line:
            return bool(self.data)
        if self._raw or (line[:1] == b"{" and not self.data):
            self._raw, value = True, line
        elif field in (b"event", b"error"):
            self.name = value.strip() if field == b"event" else field
        elif field not in (b"", b"data", b"id", b"retry"):
            self.other = self.other or line[:_SHOWN]
        if not self._raw and field not in (b"data", b"error"):
            return False
        self._lines += 1
        self.data += value.strip()
        if self._lines > _LINES or len(self.data) > LINE:
            raise ServerError("the server's stream has an event that is too long; it was cut off")
        # Some leave no empty line behind an event.
        self._parsed = _parsed(self.data) if self.data[-1:] == b"}" else None
        return self.data == DONE or self._parsed is not None

    def take(self) -> tuple[bytes, bytes, Event | None]:
        """The name of the event that has ended, its data, and the JSON that this is."""
        taken = self.name, self.data, self._parsed or _parsed(self.data)
        self.name = self.data = b""
        self._parsed, self._lines, self._raw = None, 0, False
        return taken


async def events(
    client: Client, path: str, body: Any, known: frozenset[str] = KNOWN
) -> AsyncGenerator[Event, None]:
    """The events of a streamed answer (text/event-stream); [DONE] is an empty one.

    known: members of which an event of this API has one. Comments carry nothing. Some servers send
    one object of JSON with the status 200 where a stream was asked for. Raises ServerError.
    """
    reader, started = _Reader(), False
    async with aclosing(client.lines(path, body)) as lines:
        async for line in lines:
            if reader.feed(line):
                started = True
                yield _checked(client, known, *reader.take())
    if reader.data:
        yield _checked(client, known, *reader.take())
    elif reader.other and not started:
        words = client.settings.without_secrets(Reply(200, None, _text(reader.other)).words())
        raise ServerError(f"{client.name(path)} sent no stream of events, but: {words}")


async def json_lines(client: Client, path: str, body: Any) -> AsyncGenerator[Event, None]:
    """The events of an answer that is streamed as lines of JSON. Raises ServerError."""
    async with aclosing(client.lines(path, body)) as lines:
        async for line in lines:
            if line.strip():
                yield event(line)


def event(line: bytes) -> Event:
    """A line of JSON. Raises ServerError where it is none, or says an error."""
    parsed = _parsed(line)
    if parsed is None:
        raise ServerError(f"the server's stream has no JSON: {_text(line)!r}")
    if parsed.get("error"):
        raise BrokenOffError(words(parsed), _status(parsed))
    return parsed


class _Silence:
    """Bounds each wait of this task, as asyncio.timeout() does, by one timer for all of them.

    since: seconds of the loop's clock at which the wait began; None while the task doesn't wait.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._loop = seconds, asyncio.get_running_loop()
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._cancels: int | None = None  # of the task, before the one from here
        self.since: float | None = None
        self._timer = self._loop.call_later(seconds, self._check)

    def start(self) -> None:
        """A wait begins."""
        self.since = self._loop.time()

    def _check(self) -> None:
        now = self._loop.time()
        due = (now if self.since is None else self.since) + self._seconds
        if due > now:
            self._timer = self._loop.call_at(due, self._check)
        else:
            self._cancels = self._task.cancelling()
            self._task.cancel()

    def was_too_long(self) -> bool:
        """Whether this alone has cancelled the task, which goes on then."""
        return self._cancels is not None and self._task.uncancel() <= self._cancels

    def stop(self) -> None:
        """Nothing is bounded any more."""
        self._timer.cancel()


async def in_time(
    items: AsyncIterator[T], is_filled: Callable[[T], bool], seconds: float, name: str
) -> AsyncGenerator[T, None]:
    """What has something, of what comes; the next has so many seconds, whatever else is sent.

    One task iterates it, and closes it. Raises ServerError.
    """
    silence = _Silence(seconds)
    try:
        silence.start()
        async for item in items:
            if is_filled(item):
                silence.since = None
                yield item
                silence.start()
    except asyncio.CancelledError as error:
        if silence.was_too_long():
            raise ServerError(f"{name} was silent for too long; see the server's log") from error
        raise
    finally:
        silence.stop()


def _checked(
    client: Client, known: frozenset[str], name: bytes, data: bytes, parsed: Event | None
) -> Event:
    """An event of an answer. Raises ServerError."""
    failed = b"error" in name.lower()
    if data == DONE and not failed:
        return {}
    if parsed is not None and not failed and not _failed(parsed, known):
        return parsed
    if name.decode("ascii", "replace").lower() in _ALIVE:
        return {"choices": []}
    message = _text(data) if parsed is None else words(parsed)
    raise BrokenOffError(client.settings.without_secrets(message), _status(parsed or {}))


def _failed(event: Event, known: frozenset[str]) -> bool:
    """Whether an event says an error, or is none of an answer's."""
    kind = f"{event.get('type', '')} {event.get('object', '')}".lower()
    if event.get("error") or "error" in kind:
        return True
    alive = not event or event.get("type") in _ALIVE or "chunk" in kind
    return not alive and not event.keys() & known


def _status(event: Event) -> int | None:
    """The status of HTTP that an error within a stream names."""
    error = event.get("error")
    for place in (error, event) if isinstance(error, dict) else (event,):
        for key in ("code", "status", "status_code", "http_status_code"):
            value = str(place.get(key))
            if value.isascii() and value.isdigit() and 400 <= int(value[:4]) < 600:
                return int(value)
    return None


def _parsed(line: bytes) -> Event | None:
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _text(data: bytes) -> str:
    return clean(data[:_SHOWN].decode("utf-8", "replace"))


def part(event: Event, key: str) -> Event:
    """An object in an object; empty where there is none."""
    value = event.get(key)
    return value if isinstance(value, dict) else {}


def text(event: Event, key: str) -> str:
    """A text in an object; empty where there is none."""
    value = event.get(key)
    return value if isinstance(value, str) else ""


def number(value: Any) -> int | None:
    """A whole number, where it is one."""
    return value if type(value) is int else None


def numbers(value: Any) -> list[int]:
    """Ids of tokens; empty where it is another thing."""
    whole = isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 31 for n in value)
    return value if whole else []


def parts(event: Any, key: str) -> list[Event]:
    """The objects of a list in an object."""
    value = event.get(key) if isinstance(event, dict) else None
    return [p for p in value if isinstance(p, dict)] if isinstance(value, list) else []
