"""Whether the server answers, for who can't wait."""

import os
import threading
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from ..server.address import Address
from ..settings import SettingError
from .settings import Settings

SECONDS = 0.5  # in which it has to answer


def reached() -> str | None:
    """The server's name where it answers in time; it is sent no key."""
    try:
        address = Settings.from_env(os.environ).address
    except SettingError:
        return None
    names: list[str] = []
    # Looking a name up has no timeout: a thread that nobody waits for any more may hang.
    asking = threading.Thread(target=_ask, args=(address, SECONDS, names), daemon=True)
    asking.start()
    asking.join(SECONDS)
    return names[0] if names else None


def _ask(address: Address, seconds: float, names: list[str]) -> None:
    parts = urlsplit(address.url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=seconds)
    try:
        connection.request("GET", f"{parts.path}/v1/models")
        connection.getresponse()
    except (OSError, HTTPException, ValueError):
        return
    finally:
        connection.close()
    names.append(f"server at {address.origin}")
