"""Streams of events as OpenAI's API has them, and what any server's JSON may hold."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from .address import clean
from .client import Client, Reply, ServerError

Event = dict[str, Any]


async def events(client: Client, path: str, body: Any) -> AsyncGenerator[Event, None]:
    """The events of a streamed answer; [DONE] is an empty one. Raises ServerError.

    Comments and lines that name an event carry nothing. Some servers say an error in a line
    "error:", or send it as a body of JSON with the status 200.
    """
    async with aclosing(client.lines(path, body)) as lines:
        async for line in lines:
            name, _, rest = line.strip().partition(b":")
            data = rest.strip() if name in (b"data", b"error") else line.strip()
            if data == b"[DONE]":
                yield {}
            elif data.startswith(b"{"):
                yield _checked(client, data, name == b"error")


def event(line: bytes) -> Event:
    """A line of JSON. Raises ServerError where it is none, or says an error."""
    parsed = _parsed(line)
    if parsed is None:
        said = clean(line[:200].decode("utf-8", "replace"))
        raise ServerError(f"the server's stream has no JSON: {said!r}")
    if parsed.get("error"):
        raise ServerError(f"the server broke the answer off: {_said(parsed)}")
    return parsed


def _checked(client: Client, data: bytes, failed: bool) -> Event:
    try:
        found = event(data)
    except ServerError as error:
        raise ServerError(client.settings.without_secrets(str(error))) from None
    if failed:
        said = client.settings.without_secrets(_said(found))
        raise ServerError(f"the server broke the answer off: {said}")
    return found


def _parsed(line: bytes) -> Event | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _said(found: Event) -> str:
    return Reply(200, found if "error" in found else {"error": found}, "").said()


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
    """Whole numbers that are not negative; empty where it is another thing."""
    whole = isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)
    return value if whole else []


def parts(event: Any, key: str) -> list[Event]:
    """The objects of a list in an object."""
    value = event.get(key) if isinstance(event, dict) else None
    return [p for p in value if isinstance(p, dict)] if isinstance(value, list) else []


def spoken(choice: Event) -> tuple[str, str]:
    """The reasoning and the text of a chat's choice, streamed or whole."""
    said = part(choice, "delta") or part(choice, "message")
    return text(said, "reasoning_content") or text(said, "reasoning"), text(said, "content")
