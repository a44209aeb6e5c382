"""An environment that has exo 0.0 and a rendered plugin, and a process in it.

EXO_PYTHON names the Python of an environment that has exo with plugin support. Nothing is installed
into that environment: the tests make one of their own on top of it.
"""

import json
import os
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import render_into
from test_rendered_plugin import build_wheel, python_of, run, uv

EXO_PYTHON = os.environ.get("EXO_PYTHON", "")
WHY_NOT = "EXO_PYTHON is not set to the Python of an environment with exo 0.0"


@dataclass(frozen=True)
class Variant:
    """What a variant's plugin is called, and two of its models: (id, repository, layers)."""

    name: str
    engine_name: str
    models: tuple[tuple[str, str, int], ...]

    @property
    def package(self) -> str:
        """The plugin's package."""
        return f"exo_{self.name}"

    @property
    def has_server(self) -> bool:
        """Whether its device is a server."""
        return self.name in ("openai", "rkllm")

    @property
    def extra(self) -> str:
        """The plugin's extra that its device needs."""
        return "[cpu]" if self.name == "onnx" else ""

    @property
    def ids(self) -> list[str]:
        """The models' ids in exo."""
        return [f"{model}-{self.engine_name}" for model, *_ in self.models]


_SMOLLM2 = ("smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct", 30)
_QWEN3 = ("qwen3-0.6b", "Qwen/Qwen3-0.6B", 28)
_QWEN25 = ("qwen2.5-1.5b-instruct", "Qwen/Qwen2.5-1.5B-Instruct", 28)
VARIANTS = {
    "numpy": Variant("numpy", "numpy", (_SMOLLM2, _QWEN3)),
    "onnx": Variant("onnx", "onnx", (_SMOLLM2, _QWEN3)),
    "openai": Variant("openai", "openai", (_SMOLLM2, _QWEN3)),
    "rkllm": Variant("rkllm", "rkllama", (_QWEN25, ("qwen3-1.7b", "Qwen/Qwen3-1.7B", 28))),
}


@dataclass(frozen=True)
class Host:
    """An environment with exo and a plugin's wheel; the folder that the plugin was rendered to."""

    python: Path
    plugin: Path
    variant: Variant

    def run(self, code: str, *arguments: str | Path) -> str:
        """What a piece of Python prints there, which may import the plugin's tests."""
        return run(self.python, "-c", code, *arguments, cwd=self.plugin / "tests")


def make_host(template: Path, folder: Path, variant: Variant, played: str = "") -> Host:
    """Render a variant and install it; played: Python that stands behind its backend."""
    plugin = render_into(template, folder / f"exo-{variant.name}", variant=variant.name)
    if played:
        with (plugin / variant.package / "backend.py").open("a", encoding="utf-8") as backend:
            backend.write(played)
    return Host(install(plugin, folder, variant.extra), plugin, variant)


def install(plugin: Path, folder: Path, extra: str = "") -> Path:
    """A Python that sees exo's packages through a .pth file, with the plugin's wheel and pytest.

    extra: the plugin's that its device needs, such as "[cpu]".
    """
    wheel = build_wheel(plugin, folder / "dist")
    where = "import json, sysconfig as s; "
    where += "print(json.dumps([s.get_path(name) for name in ('purelib', 'platlib')]))"
    sites = dict.fromkeys(json.loads(run(EXO_PYTHON, "-c", where)))
    run(EXO_PYTHON, "-m", "venv", "--without-pip", folder / "venv")
    python = python_of(folder / "venv")
    [own, *_] = json.loads(run(python, "-c", where))
    lines = [f"import site; site.addsitedir({site!r})\n" for site in sites]
    (Path(own) / "exo.pth").write_text("".join(lines), encoding="utf-8")
    tools = ["pytest", "pytest-asyncio", "iniconfig", "pluggy"]
    command = [uv(), "pip", "install", "--quiet", "--no-deps", "--python", python]
    run(*command, wheel, *tools, *missing(wheel, extra))
    return python


def missing(wheel: Path, extra: str) -> list[str]:
    """What exo's environment lacks for a plugin, as name==version; nothing of exo's may change."""
    command = [uv(), "pip", "install", "--dry-run", "--python", EXO_PYTHON]
    plan = run(*command, f"{wheel}{extra}").splitlines()
    changed = [line for line in plan if line.startswith(" - ")]
    assert not changed, f"the plugin changes exo's environment: {changed}"
    added = [line.removeprefix(" + ") for line in plan if line.startswith(" + ")]
    own = wheel.name.split("-")[0]
    versions = [each for each in added if "==" in each and "@" not in each]
    return [each for each in versions if each.split("==")[0].replace("-", "_") != own]


def environment(**settings: str) -> dict[str, str]:
    """This process's environment without settings that would reach into exo or the plugin."""
    foreign = ("PYTHON", "VIRTUAL_ENV", "RKLLM_", "EXO_", "PYTEST_", "HF_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return own | {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"} | settings


@contextmanager
def process(*command: str | Path, log: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended at the end, politely and then not; its stderr goes to `log`."""
    with log.open("w", encoding="utf-8") as stderr:
        options.setdefault("stdout", stderr)
        started = subprocess.Popen(
            [str(part) for part in command], stderr=stderr, text=True, **options
        )
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(5)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait(10)
            if started.stdout:
                started.stdout.close()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now, each another one."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


# No proxy of the environment may get between these tests and loopback.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get_text(url: str) -> str:
    """The text at a URL."""
    with OPENER.open(url, timeout=5) as reply:
        return str(reply.read().decode("utf-8"))


def get(url: str) -> Any | None:
    """The JSON at a URL; None where nobody answers yet."""
    try:
        with OPENER.open(url, timeout=5) as reply:
            return json.load(reply)
    except (OSError, ValueError):
        return None
