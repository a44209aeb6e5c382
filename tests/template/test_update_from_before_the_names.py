"""A plugin from before the kit had its names: with the edits of CHANGELOG its tests are green."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import history
import pytest
from conftest import REPOSITORY
from hosting import environment
from kit import run as kit
from test_kit import python_for  # noqa: F401 - a fixture, of which pytest learns here

# The last commit with kit/core; a shallow clone has it not.
BEFORE = "6f31abc68d2b196561a475ab7ef72d3c0c754ace"
CHANGELOG = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
OWN = {
    "exo_ada/backend.py": "\n\nclass Mine(Backend):\n    '''Ada's device.'''\n",
    "exo_ada/models.py": "\nADAS = 1843\n",
    "tests/device.py": "\nCOGS = 40\n",
}


def renamed() -> list[tuple[str, str]]:
    """CHANGELOG's table: what stood in an author's file, and what stands there now."""
    rows = re.findall(r"^\| `(.+?)` \| `(.+?)` \|$", CHANGELOG, re.MULTILINE)
    assert len(rows) >= 10
    return rows


def edit(plugin: Path, variant: str) -> None:
    """What CHANGELOG says to do by hand."""
    for name in history.author_files():
        path = plugin / name
        if path.suffix != ".py":
            continue
        text = path.read_text(encoding="utf-8")
        for old, new in renamed():
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
    change(plugin / "exo_ada/models.py", r"\n\ndef __getattr__.*?return MODELS\n", "")
    if variant == "openai":
        backend = plugin / "exo_ada/backend.py"
        change(backend, r"(import OpenAIBackend\n)", r"\1from .models import MODELS\n")
        change(backend, r"(    contract = 1\n)", r"\1    models = MODELS\n")
    if variant == "rkllm":
        fixtures = "from hosting import host, kind  # noqa: F401\n"
        change(plugin / "tests/device.py", r"(from server import)", rf"{fixtures}\1")


def change(path: Path, pattern: str, new: str) -> None:
    """Replace what a pattern finds once."""
    text, count = re.subn(pattern, new, path.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert count == 1, path
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("variant", ["numpy", "openai"])
def test_an_author_edits_what_changelog_says(
    variant: str,
    template: Path,
    tmp_path: Path,
    python_for: Callable[..., Path],  # noqa: F811
) -> None:
    known = subprocess.run(["git", "cat-file", "-e", f"{BEFORE}^{{commit}}"], cwd=REPOSITORY)
    if known.returncode:
        pytest.skip("this clone has not the commit")
    with environment(history.hermetic(tmp_path)):
        source, plugin = tmp_path / "template", tmp_path / "exo-ada"
        history.git(tmp_path, "clone", "--quiet", "--no-hardlinks", str(REPOSITORY), str(source))
        history._version(template, source, history.NEXT, [])
        made = history.History(source, BEFORE, BEFORE)
        history.make_plugin(made, BEFORE, plugin, {"project_name": "exo-ada", "variant": variant})
        for name, more in OWN.items():
            path = plugin / name
            path.write_text(path.read_text(encoding="utf-8") + more, encoding="utf-8")
        history.commit(plugin, "Ada's")
        before = history.files_of(plugin)
        history.update(plugin)
        after = history.files_of(plugin)
        assert history.git(plugin, "diff", "--name-only", "--diff-filter=U") == ""
        fresh = history.render_version(
            made, history.NEXT, tmp_path / "new", history.answers_of(plugin)
        )
    assert {name for name in history.author_files() if after[name] != before[name]} == set()
    edit(plugin, variant)
    for name in ("tests/test_backend.py", "tests/test_models.py", "tests/test_detection.py"):
        (plugin / name).write_bytes((fresh / name).read_bytes())  # he had not changed them
    kit.write_metadata(plugin)
    run = [python_for(plugin), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        run, cwd=plugin, env=kit.environment(plugin), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    for name, more in OWN.items():
        assert more in (plugin / name).read_text(encoding="utf-8")
