"""Where the server is and how patient to be, from the environment."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

KINDS = ("auto", "legacy", "rkllama", "openai")


class SettingsError(ValueError):
    """An environment variable holds what it can't."""


@dataclass(frozen=True)
class Settings:
    """All times in seconds; max_tokens is the server's own limit for one answer."""

    url: str
    kind: str = "auto"
    model: str | None = None
    max_tokens: int = 4096
    connect_seconds: float = 5.0
    silence_seconds: float = 240.0
    drain_seconds: float = 15.0
    load_seconds: float = 300.0

    @property
    def shown_url(self) -> str:
        """The address as errors may show it, without a user's password."""
        return _without_password(self.url)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Read RKLLM_*; host and port as exo's own engine names them. Raises SettingsError."""
        kind = environ.get("RKLLM_SERVER_KIND") or "auto"
        if kind not in KINDS:
            raise SettingsError(
                f"RKLLM_SERVER_KIND is {kind!r}; set it to one of {', '.join(KINDS)}"
            )
        return cls(
            url=_url(environ),
            kind=kind,
            model=environ.get("RKLLM_MODEL") or None,
            max_tokens=max(1, int(_positive(environ, "RKLLM_MAX_TOKENS", cls.max_tokens))),
            connect_seconds=_positive(environ, "RKLLM_CONNECT_SECONDS", cls.connect_seconds),
            silence_seconds=_positive(environ, "RKLLM_SILENCE_SECONDS", cls.silence_seconds),
            drain_seconds=_positive(environ, "RKLLM_DRAIN_SECONDS", cls.drain_seconds),
            load_seconds=_positive(environ, "RKLLM_LOAD_SECONDS", cls.load_seconds),
        )


def _url(environ: Mapping[str, str]) -> str:
    host = environ.get("RKLLM_SERVER_HOST") or "localhost"
    port = environ.get("RKLLM_SERVER_PORT") or "8080"
    if not port.isdigit():
        raise SettingsError(f"RKLLM_SERVER_PORT is {port!r}; set it to a number, such as 8080")
    host = f"[{host}]" if ":" in host else host
    url = environ.get("RKLLM_SERVER_URL") or f"http://{host}:{port}"
    if not url.startswith(("http://", "https://")):
        shown = _without_password(url)
        raise SettingsError(f"RKLLM_SERVER_URL is {shown!r}; it starts with http:// or https://")
    return url.rstrip("/").removesuffix("/v1")


def _without_password(url: str) -> str:
    return re.sub(r"(?:(?<=//)|^)[^/@]*@", "", url)


def _positive(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name)
    try:
        value = default if not text else float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise SettingsError(f"{name} is {text!r}; set it to a number above 0")
    return value
