"""Connections that nobody gives up half-way."""

import asyncio
import errno
from typing import Any

from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientSSLError,
    ServerDisconnectedError,
    TCPConnector,
)
from aiohttp.connector import Connection

_WHY = {
    errno.ECONNREFUSED: "connection refused",
    errno.EHOSTUNREACH: "the host can't be reached",
    errno.ENETUNREACH: "its network can't be reached",
}


# OpenSSL's codes (X509_V_ERR_*) of certificates that no setting makes good.
_CERTIFICATE = {
    9: "its certificate is not valid yet: see both clocks",
    10: "its certificate has expired: renew it there",
    62: "its certificate is for another name: write the name that stands in it",
    64: "its certificate is for another address: write the name that stands in it",
}
_UNKNOWN = "its certificate is signed by nobody known here: name its issuer's in SSL_CERT_FILE"


def reason(error: ClientConnectorError) -> str:
    """Why no connection was made, in words that don't depend on the event loop."""
    if isinstance(error, ClientConnectorCertificateError):
        code = getattr(error.certificate_error, "verify_code", None)
        return _CERTIFICATE.get(code, _UNKNOWN) if isinstance(code, int) else _UNKNOWN
    if isinstance(error, ClientSSLError):
        return "it speaks no TLS: write http://"
    if isinstance(error, ClientConnectorDNSError):
        return "no such host"
    return _WHY.get(error.os_error.errno or 0, "it takes no connection")


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
