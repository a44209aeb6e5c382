"""What is tried before a refusal reaches the user, each at most once an answer."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..server.client import Client, Refused, ServerError
from ..server.events import BrokenOffError
from .connection import Connection
from .dialect import ServerRequest, renames
from .refusal import WRONG, limit_in
from .settings import Settings

AGAIN_SECONDS = 5.0  # how often a server is asked anew what it is

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Remedy:
    """most: the tokens of an answer to ask for; connection: the server as it is now.

    limit: the most tokens of prompt and answer, for the connection to keep once this has helped.
    """

    most: int | None = None
    limit: int | None = None
    connection: Connection | None = None


class Remedies:
    """Of one loaded model. connect: finds anew what the server is, and raises ServerError."""

    def __init__(
        self,
        client: Client,
        settings: Callable[[], Settings],
        connect: Callable[[], Awaitable[Connection]],
    ) -> None:
        self._client, self._settings, self._connect = client, settings, connect
        self._one = asyncio.Lock()
        self._last_try = (
            -AGAIN_SECONDS
        )  # when the server was asked anew, seconds of time.monotonic()
        self._newest: Connection | None = None

    async def find(
        self,
        error: Refused | BrokenOffError,
        connection: Connection,
        sent: ServerRequest,
        tried: set[str],
    ) -> Remedy | None:
        """What may help against a refusal of this request; None where nothing is left to try.

        tried: what was tried for this answer; it gets what this tries.
        """
        status = error.status
        if status == 401 and self._first("key", tried) and self._new_key():
            return Remedy()
        if status is None or status in WRONG:
            less = None if renames(error.words) else self._less(error, sent, tried)
            if less:
                return less
            fields = status is not None and self._first("fields", tried)
            if fields and connection.server.refuse(error.words, sent):
                return Remedy()
        if status in (400, 404) and self._first("server", tried):
            return await self._anew(connection)
        return None

    def _first(self, what: str, tried: set[str]) -> bool:
        first = what not in tried
        tried.add(what)
        return first

    def _new_key(self) -> bool:
        """Whether the key's file, or the setting, has another key than was sent."""
        old, new = self._client.settings, self._settings()
        if new.key == old.key:
            return False
        self._client.settings = new
        return True

    def _less(
        self, error: Refused | BrokenOffError, sent: ServerRequest, tried: set[str]
    ) -> Remedy | None:
        """Fewer tokens of an answer, where the refusal is about a limit."""
        bounds = limit_in(error.words, len(sent.ids), sent.max_tokens)
        if bounds is None or not self._first("limit", tried):
            return None
        most, prompt = bounds
        # One less than what is left: to some servers a full context is one too many.
        answer = max(most - prompt - 1, 1) if prompt else most
        limit = most - prompt + len(sent.ids) if prompt else None
        _log.warning("the server takes fewer tokens than %d: %s", sent.max_tokens, error.words)
        return Remedy(min(answer, sent.max_tokens - 1) or None, limit)

    async def _anew(self, connection: Connection) -> Remedy | None:
        """Ask the server what it is; None where that is what it was."""
        async with self._one:
            if time.monotonic() - self._last_try > AGAIN_SECONDS:
                self._last_try = time.monotonic()
                try:
                    self._newest = await self._connect()
                except ServerError as error:
                    _log.warning("the server was asked anew what it is: %s", error)
                    self._newest = None
        newest = self._newest
        if newest is None or newest is connection or newest.same(connection):
            return None
        _log.warning("another server answers at the address: %s", newest.server.name)
        return Remedy(connection=newest)
