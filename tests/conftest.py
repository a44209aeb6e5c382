"""The template, rendered in-process as a user without `--trust` would render it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import copier
import jinja2
import pytest
import yaml
from copier._main import Worker

REPOSITORY = Path(__file__).parent.parent
LIST_FILES = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
Render = Callable[..., Path]

# The kit's tests run on a render, in a process of their own: test_kit.py.
collect_ignore = ["kit"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """What changes on purpose, and its snapshot with it."""
    parser.addoption("--update-files", action="store_true", help="write template/files.txt anew")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes goes first: one worker would have it to itself at the end."""
    items.sort(key=lambda item: item.path.name != "test_kit.py")


@pytest.fixture(scope="session", autouse=True)
def quick_renders() -> Iterator[None]:
    """For each render, copier compiles each name and file anew, and starts a git for each file."""
    compiled = cache(jinja2.Environment.compile)
    with pytest.MonkeyPatch.context() as patch:
        # A source is compiled for the first of the environments that are alike.
        first: dict[Any, jinja2.Environment] = {}

        def compile(self: jinja2.Environment, *given: Any, **named: Any) -> Any:
            alike = (type(self), self.lexer, *self.extensions)  # jinja2 shares a lexer by syntax
            return compiled(first.setdefault(alike, self), *given, **named)

        patch.setattr(jinja2.Environment, "compile", compile)
        if os.name != "nt":  # it asks git of each file whether modes are to be written for Windows
            name = "_sync_git_index_executable_bit"
            patch.setattr(Worker, name, lambda *_: None, raising=False)
        yield


def questions() -> dict[str, dict[str, object]]:
    """The questions of copier.yml that a user is asked, in their order."""
    config = yaml.safe_load((REPOSITORY / "copier.yml").read_text(encoding="utf-8"))
    return {
        name: value
        for name, value in config.items()
        if not name.startswith("_") and value.get("when") is not False
    }


def _files_of_template() -> list[str]:
    """Every file that git tracks or could track, so that an uncommitted one is rendered too."""
    listing = subprocess.run(
        [*LIST_FILES, "--", "copier.yml", "hooks", "template"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    return [name for name in listing.stdout.decode().split("\0") if name]


def copy_template(folder: Path) -> Path:
    """Copy the template, as it stands in the working tree, into a folder that is no repository."""
    for name in _files_of_template():
        source = REPOSITORY / name
        if source.is_file():  # a deleted file is still listed
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    return folder


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as it stands in the working tree, in a folder that is no git repository."""
    return copy_template(tmp_path_factory.mktemp("template"))


def render_into(template: Path | str, destination: Path, **answers: str) -> Path:
    """Render the template with these answers and defaults for the rest.

    Raises:
        ValueError: an answer belongs to no question, or a validator refused it.
    """
    unknown = answers.keys() - questions().keys()
    if unknown:
        # copier itself takes them silently, and the test would prove nothing.
        raise ValueError(f"These answers are no questions of copier.yml: {sorted(unknown)}")
    copier.run_copy(
        str(template), destination, data=answers, defaults=True, quiet=True, unsafe=False
    )
    return destination


@pytest.fixture
def render(template: Path, tmp_path: Path) -> Render:
    """Function `render(folder_name, **answers)` that gives the folder of the rendered plugin."""

    def render_one(name: str = "exo-myengine", **answers: str) -> Path:
        return render_into(template, tmp_path / name, **answers)

    return render_one


def variants() -> list[str]:
    """The variants that copier.yml offers."""
    choices = questions()["variant"]["choices"]
    assert isinstance(choices, dict)
    return list(choices.values())


@pytest.fixture(scope="session")
def hosted(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The template at an address, as its users have it."""
    from hosting import Hosted  # it imports this module

    return Hosted.make(template, tmp_path_factory.mktemp("hosted"))


@pytest.fixture(scope="session")
def plugin_of(hosted: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Function `plugin_of(variant)`: exo-<variant> with every default; nobody may write into it."""

    @cache
    def rendered(variant: str) -> Path:
        folder = tmp_path_factory.mktemp("plugin") / f"exo-{variant}"
        return hosted.render(folder, variant=variant)

    return rendered


@pytest.fixture(scope="session")
def rkllm_plugin(plugin_of: Callable[[str], Path]) -> Path:
    """The RKLLM plugin with every default; tests must not write into it."""
    return plugin_of("rkllm")


@pytest.fixture(scope="session")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this repository, which has the checker."""
    from test_rendered_plugin import run, uv  # it imports this module

    folder = tmp_path_factory.mktemp("checker")
    run(uv(), "build", "--quiet", "--wheel", "--python", sys.executable, "-o", folder, REPOSITORY)
    [wheel] = folder.glob("*.whl")
    return wheel
