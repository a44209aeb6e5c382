"""The host of the tests: a real exo where this interpreter has one, else the stand-in."""

import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from plugin import ENGINE_NAME

pytest_plugins = ("device",)

SECONDS = 60  # a test that takes longer hangs

# huggingface_hub reads it once, at its import: no test may fetch anything.
os.environ["HF_HUB_OFFLINE"] = "1"


def _real_exo() -> Path | None:
    """Return the folder of an exo that has plugins; PyPI's `exo` is another project."""
    try:
        spec = importlib.util.find_spec("exo.inference.plugin_discovery")
    except Exception:  # whatever a foreign module called exo does at its import
        return None
    return Path(spec.origin).parents[1] if spec and spec.origin else None


def _use_stand_in(folder: Path) -> None:
    """Put the stand-in first, and forget another module that is called exo."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "exo"]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


_STAND_IN = Path(__file__).parent / "standin"
_REAL = _real_exo()
if _REAL is None:
    _use_stand_in(_STAND_IN)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    """Fail a test that hangs, and then its fixtures if they do. Windows has no such alarm."""

    def fail(*_: Any) -> None:
        pytest.fail(f"it hangs: no end within {SECONDS} seconds")

    if not hasattr(signal, "setitimer"):
        return (yield)
    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, SECONDS)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def pytest_report_header() -> str:
    """Say which exo the tests ran on."""
    return f"exo host: real ({_REAL})" if _REAL else f"exo host: stand-in ({_STAND_IN})"


@pytest.fixture
def downloader(monkeypatch: pytest.MonkeyPatch) -> Any:
    """exo's downloader, without a network; it keeps its calls."""
    from driver import RecordingDownloader

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)  # else no engine asks it

    return RecordingDownloader()


@pytest_asyncio.fixture
async def new_engine(downloader: Any) -> AsyncIterator[Callable[[], Any]]:
    """Make engines as exo does; they are closed after the test."""
    from exo.inference.plugin_discovery import load_inference_engine

    made: list[Any] = []

    def make() -> Any:
        made.append(load_inference_engine(ENGINE_NAME, downloader))
        return made[-1]

    yield make
    for engine in made:
        await engine.close()


@pytest.fixture
def engine(new_engine: Callable[[], Any]) -> Any:
    """One engine, made as exo does."""
    return new_engine()
