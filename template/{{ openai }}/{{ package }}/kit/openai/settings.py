"""Where the server is, its key, and how it is spoken to: EXO_<ENGINE>_*."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..server.settings import CONNECT_SECONDS, SILENCE_SECONDS, Environment
from ..server.settings import Settings as ServerSettings
from ..settings import PREFIX

KINDS = (
    "auto", "vllm", "llama.cpp", "sglang", "tensorrt-llm", "llama-cpp-python", "lm-studio",
    "openai",
)  # fmt: skip
PROMPT_MODES = ("auto", "ids", "text", "chat")
URL = "http://localhost:8080"


@dataclass(frozen=True)
class Settings(ServerSettings):
    """What these servers need beside what every server does. All times in seconds.

    busy_seconds: how long a server that is busy is asked again; load_seconds: how long one that
    loads its model is waited for.
    """

    kind: str = "auto"
    prompt_mode: str = "auto"
    busy_seconds: float = 60.0
    load_seconds: float = 300.0

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Read EXO_<ENGINE>_*. Raises SettingError."""
        env = Environment(environ)
        return cls(
            address=env.address("URL", URL),
            model=env.text("MODEL") or None,
            connect_seconds=env.seconds("CONNECT_SECONDS", CONNECT_SECONDS),
            silence_seconds=env.seconds("SILENCE_SECONDS", SILENCE_SECONDS),
            key=env.key("API_KEY"),
            kind=env.choice("KIND", KINDS),
            prompt_mode=env.choice("PROMPT_MODE", PROMPT_MODES),
            busy_seconds=env.seconds("BUSY_SECONDS", cls.busy_seconds),
            load_seconds=env.seconds("LOAD_SECONDS", cls.load_seconds),
        )


def named(name: str) -> str:
    """A setting's whole name, for sentences."""
    return PREFIX + name
