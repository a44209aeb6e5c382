"""The kit's tests (tests/kit), on every variant, with the lowest or the newest requirements."""

import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from conftest import variants
from kit import run as kit
from test_rendered_plugin import make_venv, run, uv

# The oldest Python runs with the lowest requirements, all others with the newest. What is common
# to all variants runs with one of them: with an engine over a server and with one of steps.
OLDEST = sys.version_info < (3, 12)
VERSIONS = ("--resolution", "lowest-direct", "--only-binary", ":all:") if OLDEST else ()
WHOLE = "rkllm" if OLDEST else "numpy"
OTHER = kit.Names("exo-some-device", "other")


@pytest.fixture(scope="session")
def python_for(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Function `python_for(plugin)`: a Python with what this plugin's tests need."""

    def make(plugin: Path) -> Path:
        text = (plugin / "pyproject.toml").read_text(encoding="utf-8")
        project = tomllib.loads(text)["project"]
        needs = [*project["dependencies"], *project["optional-dependencies"]["test"]]
        python = make_venv(tmp_path_factory.mktemp("python") / "venv")
        run(uv(), "pip", "install", "--quiet", "--python", python, *VERSIONS, *needs)
        return python

    return make


@pytest.fixture(scope="session")
def rendered(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Function `rendered(variant, names)`: a plugin with the kit's tests among its own."""

    @cache
    def make(variant: str, names: kit.Names = kit.FIXED) -> Path:
        return kit.render(template, tmp_path_factory.mktemp("kit") / "plugin", variant, names)

    return make


def run_kit(python: Path | str, plugin: Path, variant: str, *arguments: str) -> None:
    """These tests of the kit pass, on this Python."""
    done = subprocess.run(
        [str(python), *kit.command(plugin, variant, "-q", *arguments)],
        cwd=plugin,
        env=kit.environment(plugin),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_every_variant_has_its_folders_of_tests() -> None:
    assert list(kit.FOLDERS) == variants()
    folders = {path.name for path in kit.KIT.iterdir() if list(path.glob("test_*.py"))}
    assert folders == {folder for every in kit.FOLDERS.values() for folder in every}


@pytest.mark.parametrize("variant", kit.FOLDERS)
def test_the_kit_works(
    rendered: Callable[..., Path], python_for: Callable[..., Path], variant: str
) -> None:
    plugin = rendered(variant)
    own = [f"tests/kit/{part}" for part in kit.FOLDERS[variant] if part != "exo_0_3"]
    run_kit(python_for(plugin), plugin, variant, *([] if variant == WHOLE else own))


def test_the_kit_works_under_another_name(rendered: Callable[..., Path]) -> None:
    plugin = rendered("numpy", OTHER)
    some = ("test_doctor.py", "test_generate.py", "test_requests.py", "test_patches.py")
    run_kit(sys.executable, plugin, "numpy", *some)
