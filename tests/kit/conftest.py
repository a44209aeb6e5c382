"""Fixtures of the kit's tests, which stand in a folder of a rendered plugin's tests (run.py)."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import exo
import huggingface_hub.constants  # noqa: F401 - it reads HF_HUB_OFFLINE here, whoever comes first
import pytest
import pytest_asyncio
from command import run_cli, use_backend  # noqa: F401 - fixtures, of which pytest learns here
from patched import api, api_module, fixes, node_module, ring, without  # noqa: F401
from plugin import ENGINE_CLASS

if getattr(exo, "STAND_IN", False):
    exo.__path__.append(str(Path(__file__).parent / "standin_node/exo"))


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Where a runner finds the toy."""
    from running import Source
    from toy import write_tokenizer

    monkeypatch.setenv("EXO_HOME", str(tmp_path))
    return Source(write_tokenizer("organization/toy"))


@pytest_asyncio.fixture
async def new_runner(source: Any) -> AsyncIterator[Callable[..., Any]]:
    """Make runners of a backend class, loaded unless told otherwise; closed after the test."""
    from running import WHOLE

    from exo_kit.kit.engine.engine import Engine

    made: list[Any] = []

    async def make(backend_class: Any, load: bool = True, layers: Any = WHOLE, **named: Any) -> Any:
        made.append(Engine(backend_class, **named))
        if load:
            await made[-1].load(layers, source)
        return made[-1]

    yield make
    for runner in made:
        await runner.close()


@pytest_asyncio.fixture
async def off(new_runner: Callable[..., Any]) -> Any:
    """A runner that computes everything anew."""
    from toy import ToyMany

    return await new_runner(ToyMany, reuses=False)


@pytest.fixture
def model_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model of this plugin, with the toy's tokenizer in an exo home of its own."""
    from toy import write_tokenizer

    from exo_kit.models import MODELS

    monkeypatch.setenv("EXO_HOME", str(tmp_path))
    name, card = next(iter(MODELS.items()))
    write_tokenizer(card["repo"][ENGINE_CLASS])
    return name


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, new_engine: Callable[[], Any]) -> Callable[[type], Any]:
    """Make an engine on a scripted backend class."""

    def make(backend_class: type) -> Any:
        from exo_kit import engine as module

        monkeypatch.setattr(getattr(module, ENGINE_CLASS), "backend", backend_class)
        return new_engine()

    return make
