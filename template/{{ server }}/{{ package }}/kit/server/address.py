"""Where a server is, taken apart once, and what may be shown of it and of its words."""

import re
import unicodedata
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, unquote, urlsplit

SHOWN = 300  # characters of somebody else's words in a sentence

_SECRETS = re.compile(r"//[^\s/]*@|\?[^\s'\")>]*")


class AddressError(ValueError):
    """A server's address that can't be used; the text shows no more of it than is safe."""


@dataclass(frozen=True)
class Address:
    """A server's address without the user and password, which go in a header of their own.

    origin: scheme, host and port, all that a sentence may hold. user: name and password.
    """

    url: str
    origin: str
    user: tuple[str, str] | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Take an address apart. Raises AddressError."""
        parts = _split(text)
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise AddressError(f"{origin(text)!r} is no address; write http://host:port")
        if parts.query or parts.fragment:
            raise AddressError(f"the address of {origin(text)} goes on behind a ? or #: cut it off")
        user = None
        if parts.username is not None:
            user = unquote(parts.username), unquote(parts.password or "")
        host = parts.netloc.rpartition("@")[2]
        path = quote(parts.path, safe="/%").rstrip("/").removesuffix("/v1")
        return cls(f"{parts.scheme}://{host}{path}", f"{parts.scheme}://{host}", user)

    def without_secrets(self, text: str) -> str:
        """Somebody else's words on this address, without the password and without queries."""
        for secret in self.user or ():
            if len(secret) > 2:
                text = text.replace(secret, "…").replace(quote(secret, safe=""), "…")
        return clean(_SECRETS.sub(lambda match: "//" if match[0][0] == "/" else "", text))


def origin(url: str) -> str:
    """Scheme, host and port of any address, right or wrong; nothing else of it is repeated."""
    scheme, mark, rest = url.partition("://")
    if not mark or not scheme.isalnum():
        scheme, mark, rest = "", "", url
    # A password may hold any sign, so the host begins after the last @ of all.
    rest = rest.rpartition("@")[2]
    return clean(scheme + mark + re.split(r"[/?#\\]", rest, maxsplit=1)[0])


def clean(text: str, most: int = SHOWN) -> str:
    """Somebody else's words on one line, cut, without the signs that steer a terminal."""
    printable = (
        " " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text[: most * 8]
    )
    line = "".join(c for c in printable if unicodedata.category(c) not in ("Cf", "Cs"))
    return " ".join(line.split())[:most]


def _split(text: str) -> SplitResult | None:
    """The parts of an address; None where it has none, or a port that can't be."""
    if any(c <= " " or c == "\\" for c in text):
        return None
    try:
        parts = urlsplit(text)
        return parts if parts.port != 0 else None
    except ValueError:
        return None
