"""Where the RKLLM server is and how patient to be: RKLLM_*, as exo's own engine names them."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..server.settings import CONNECT_SECONDS, SILENCE_SECONDS, Environment
from ..server.settings import Settings as ServerSettings
from ..settings import SettingError

BACKENDS = ("auto", "runtime", "server")
KINDS = ("auto", "legacy", "rkllama", "openai")


@dataclass(frozen=True)
class Settings(ServerSettings):
    """What an RKLLM server, or the runtime in the process, needs. All times in seconds.

    has_server: whether a setting names a server. library, version: the runtime's, where they can't
    be told. models: folders with .rkllm files. context: tokens, 0 for the runtime's own. cpus: a
    mask of the board's, 0 for the runtime's own choice. temperature: every request's, where the
    runtime takes none with a request.
    """

    kind: str = "auto"
    drain_seconds: float = 15.0
    load_seconds: float = 300.0
    url_name: str = "RKLLM_SERVER_URL"
    backend: str = "auto"
    has_server: bool = False
    library: str = ""
    version: str | None = None
    models: str = ""
    context: int = 0
    cpus: int = 0
    temperature: float = 0.0

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Read RKLLM_*. Raises SettingError."""
        env = Environment(environ, "RKLLM_")
        return cls(
            address=env.address("SERVER_URL", _host_and_port(env)),
            model=env.text("MODEL") or None,
            connect_seconds=env.seconds("CONNECT_SECONDS", CONNECT_SECONDS),
            silence_seconds=env.seconds("SILENCE_SECONDS", SILENCE_SECONDS),
            kind=env.choice("SERVER_KIND", KINDS),
            drain_seconds=env.seconds("DRAIN_SECONDS", cls.drain_seconds),
            load_seconds=env.seconds("LOAD_SECONDS", cls.load_seconds),
            backend=env.choice("BACKEND", BACKENDS),
            has_server=any(env.text(f"SERVER_{name}") for name in ("URL", "HOST", "PORT")),
            library=env.text("LIBRARY"),
            version=env.text("RUNTIME_VERSION") or None,
            models=env.text("MODELS"),
            context=env.whole("CONTEXT"),
            cpus=env.whole("CPUS"),
            temperature=env.temperature("TEMPERATURE"),
        )


def _host_and_port(env: Environment) -> str:
    host, port = env.text("SERVER_HOST", "localhost"), env.text("SERVER_PORT", "8080")
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise env.wrong("SERVER_PORT", "set it to a number, such as 8080")
    if any(sign in host for sign in "/@?#"):
        raise SettingError("RKLLM_SERVER_HOST is a host's name; an address is RKLLM_SERVER_URL")
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
