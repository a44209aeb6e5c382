"""Fixtures of the kit's tests, which stand in a folder of a rendered plugin's tests (run.py)."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from command import told, use_backend  # noqa: F401 - fixtures, of which pytest learns here


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
