"""What a user can set about the RKLLM server: environment variables, read once."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

KINDS = ("auto", "legacy", "rkllama", "openai")


class SettingsError(ValueError):
    """A variable of the environment has a value that can't be used; the message says which."""


@dataclass(frozen=True)
class Settings:
    """Where the server is, what it speaks, and how long to wait for it."""

    url: str = "http://localhost:8080"
    kind: str = "auto"
    model: str | None = None
    max_tokens: int = 4096
    connect_seconds: float = 5.0
    # Longer than a prefill of 4k tokens on the NPU (about 71 s), shorter than the 300 s after
    # which rkllama aborts requests by itself.
    silence_seconds: float = 240.0
    drain_seconds: float = 15.0
    load_seconds: float = 300.0

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the RKLLM_* variables; an empty one counts as not set.

        Raises:
            SettingsError: a value can't be used.
        """
        return cls(
            url=_url(environ),
            kind=_kind(environ),
            model=_text(environ, "RKLLM_MODEL"),
            max_tokens=_whole(environ, "RKLLM_MAX_TOKENS", cls.max_tokens, 2**31 - 1),
            connect_seconds=_seconds(environ, "RKLLM_CONNECT_SECONDS", cls.connect_seconds),
            silence_seconds=_seconds(environ, "RKLLM_SILENCE_SECONDS", cls.silence_seconds),
            drain_seconds=_seconds(environ, "RKLLM_DRAIN_SECONDS", cls.drain_seconds),
            load_seconds=_seconds(environ, "RKLLM_LOAD_SECONDS", cls.load_seconds),
        )


def _text(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(name, "").strip() or None


def _url(environ: Mapping[str, str]) -> str:
    """The server's address, without a trailing slash or /v1."""
    given = _text(environ, "RKLLM_SERVER_URL")
    if given is None:
        host = _text(environ, "RKLLM_SERVER_HOST") or "localhost"
        if "/" in host:
            raise SettingsError(
                f"RKLLM_SERVER_HOST is {host!r}, which is not a host name. "
                "Put a whole address in RKLLM_SERVER_URL."
            )
        if host.count(":") > 1 and not host.startswith("["):
            host = f"[{host}]"  # an IPv6 address
        port = _whole(environ, "RKLLM_SERVER_PORT", 8080, 65535)
        given = f"http://{host}:{port}"
    return _checked_url(given)


def _checked_url(given: str) -> str:
    wrong = SettingsError(
        f"The server's address {given!r} can't be used. "
        "Set RKLLM_SERVER_URL to something like http://192.168.1.20:8080."
    )
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise wrong
    if parts.query or parts.fragment or any(c.isspace() for c in given):
        raise wrong
    # Users copy the address from an OpenAI client, where it ends in /v1.
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _kind(environ: Mapping[str, str]) -> str:
    kind = (_text(environ, "RKLLM_SERVER_KIND") or "auto").lower()
    if kind not in KINDS:
        raise SettingsError(f"RKLLM_SERVER_KIND is {kind!r}. Use one of {', '.join(KINDS)}.")
    return kind


def _whole(environ: Mapping[str, str], name: str, default: int, most: int) -> int:
    given = _text(environ, name)
    if given is None:
        return default
    if not (given.isascii() and given.isdigit() and len(given) <= 10 and 1 <= int(given) <= most):
        raise SettingsError(f"{name} is {given!r}. Set it to a whole number from 1 to {most}.")
    return int(given)


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    given = _text(environ, name)
    if given is None:
        return default
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise SettingsError(f"{name} is {given!r}. Set it to a number of seconds above 0.")
    return seconds
