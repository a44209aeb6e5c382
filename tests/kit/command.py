"""Runs the plugin's command in this process, on a toy backend."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import plugin
import pytest
import toy
from toy import ToyAnswers, ToyBackend

from exo_kit.kit.command import loaded_model
from exo_kit.kit.command.cli import main
from exo_kit.plugin import PLUGIN

BACKEND = "exo_kit.backend"
# For a process that needs the tests' own modules.
PYTHONPATH = os.pathsep.join(str(Path(module.__file__).parent) for module in (plugin, toy))


class Output(NamedTuple):
    """What the command left: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_cli(
    capsys: pytest.CaptureFixture[str], model_id: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Output]:
    """Function `run_cli(*argv)`: runs the command; a template's process may start slowly."""
    monkeypatch.setattr(loaded_model, "TEMPLATE_SECONDS", 30.0)

    def run(*argv: str) -> Output:
        try:
            code = main(PLUGIN, argv)
        except SystemExit as end:  # argparse's
            code = int(end.code or 0)
        return Output(code, *capsys.readouterr())

    return run


@pytest.fixture
def use_backend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., type]:
    """Function `use_backend(base, **members)`: backend.py has the toy's class, so changed."""

    def use(base: type = ToyBackend, **members: Any) -> type:
        base.made.clear()  # type: ignore[attr-defined]
        module = ModuleType(BACKEND)
        scripted = type("Scripted", (base,), members)
        module.Backend = scripted  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, BACKEND, module)
        return scripted

    return use


BOTH = pytest.mark.parametrize("base", [ToyBackend, ToyAnswers])
