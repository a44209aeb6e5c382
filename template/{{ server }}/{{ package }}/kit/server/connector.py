"""Connections that nobody gives up half-way."""

import asyncio
from typing import Any

from aiohttp import ServerDisconnectedError, TCPConnector
from aiohttp.connector import Connection


class Connector(TCPConnector):
    """Makes each connection to its end, and closes it where nobody wants it any more.

    Under uvloop, which is exo's loop, a connection that aiohttp gives up half-way has its socket
    closed twice: the second time its number can be another connection's, and exo aborts.
    """

    async def connect(self, *args: Any, **named: Any) -> Connection:
        making = asyncio.ensure_future(super().connect(*args, **named))
        try:
            made = await asyncio.shield(making)
        except asyncio.CancelledError:
            _given_up.add(making)
            making.add_done_callback(_close)
            raise
        if made.transport is None:  # the server has closed it while the task ended
            made.close()
            raise ServerDisconnectedError
        return made


def _close(making: "asyncio.Task[Connection]") -> None:
    _given_up.discard(making)
    if not making.cancelled() and making.exception() is None:
        making.result().close()


_given_up: set["asyncio.Task[Connection]"] = set()
