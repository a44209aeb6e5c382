"""What is published: this repository's wheel and its version, plugins' metadata, names of files."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from conftest import LIST_FILES, REPOSITORY, Render, variants
from test_rendered_plugin import build_wheel, make_venv, run, uv

GIT = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "tag.gpgsign=false"]
# Windows' limit is 260; the rest is for the folder in which someone keeps projects.
LONGEST = 160
LONGEST_NAME = "exo-" + "x" * 36
DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(10)),
}


def tracked(*folders: str) -> list[str]:
    """The files that git tracks or could track."""
    listed = subprocess.run(
        [*LIST_FILES, "--", *folders], cwd=REPOSITORY, check=True, capture_output=True
    )
    names = listed.stdout.decode().split("\0")
    return [name for name in names if name and (REPOSITORY / name).is_file()]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What the distribution is made from, in a folder that is no git repository."""
    for name in tracked("hooks", "template", "pyproject.toml", "README.md", "LICENSE"):
        target = tmp_path / "tree" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, target)
    return tmp_path / "tree"


def tag(tree: Path, name: str) -> None:
    """Make a git repository of a tree, with one commit that has this tag."""
    run(*GIT, "init", "--quiet", cwd=tree)
    run(*GIT, "add", "--all", cwd=tree)
    run(*GIT, "commit", "--quiet", "--message", name, cwd=tree)
    run(*GIT, "tag", name, cwd=tree)


def test_pip_install_from_git_gives_the_command_in_the_version_of_the_tag(
    tree: Path, tmp_path: Path, rkllm_plugin: Path
) -> None:
    tag(tree, "v1.2.3")
    python = make_venv(tmp_path / "venv")
    source = f"exo-engine-template @ git+{tree.as_uri()}"
    run(uv(), "pip", "install", "--quiet", "--python", python, source)
    output = run(python.with_name("exo-engine"), "check", "--static", rkllm_plugin, cwd=tmp_path)
    assert re.search(r"^no fault, \d+ checks passed$", output, re.M)
    version = "from importlib.metadata import version as v; print(v('exo-engine-template'))"
    assert run(python, "-c", version, cwd=tmp_path) == "1.2.3\n"


def test_without_git_there_is_still_a_version(tree: Path, tmp_path: Path) -> None:
    wheel = build_wheel(tree, tmp_path / "dist")
    assert wheel.name.split("-")[1] == "0.0.0"
    assert_publishable(tree, wheel.parent)


@pytest.mark.parametrize("variant", variants())
def test_a_plugin_may_go_to_pypi(
    variant: str, plugin_of: Callable[[str], Path], tmp_path: Path
) -> None:
    plugin = plugin_of(variant)
    build_wheel(plugin, tmp_path / "dist")
    assert_publishable(plugin, tmp_path / "dist")


def assert_publishable(project: Path, dist: Path) -> None:
    """validate-pyproject and twine have nothing to say."""
    run(sys.executable, "-m", "validate_pyproject", project / "pyproject.toml")
    archives = sorted(dist.glob("*.whl")) + sorted(dist.glob("*.tar.gz"))
    assert len(archives) == 2
    output = run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", *archives)
    assert output.count("PASSED") == 2


def test_both_bite(rkllm_plugin: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "exo-rkllm"
    shutil.copytree(rkllm_plugin, plugin)
    config = plugin / "pyproject.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("Typing :: Typed", "Typing :: Untyped"), encoding="utf-8")
    with pytest.raises(AssertionError, match="validate_pyproject"):
        assert_publishable(plugin, tmp_path)
    config.write_text(text.replace('readme = "README.md"\n', ""), encoding="utf-8")
    build_wheel(plugin, tmp_path / "dist")
    with pytest.raises(AssertionError, match="long_description"):
        assert_publishable(plugin, tmp_path / "dist")


def illegal(path: str) -> str:
    """Why Windows would refuse a path, or nothing."""
    for part in PurePosixPath(path).parts:
        if names := set(part) & set('"|:<>?*\\') or {c for c in part if ord(c) < 32}:
            return f"{part}: {sorted(names)}"
        if part.endswith((".", " ")):
            return f"{part}: ends with a dot or a space"
        if part.partition(".")[0].strip().lower() in DEVICES:
            return f"{part}: a device"
    return f"{path}: longer than {LONGEST}" if len(path) > LONGEST else ""


def test_every_path_is_legal_on_windows(render: Render) -> None:
    paths = tracked()
    assert "copier.yml" in paths
    for variant in variants():
        plugin = render(f"{variant}/{LONGEST_NAME}", variant=variant)
        names = [path for path in plugin.rglob("*") if path.is_file()]
        paths += [f"{plugin.name}/{path.relative_to(plugin).as_posix()}" for path in names]
    assert [reason for path in paths if (reason := illegal(path))] == []


def test_no_two_paths_differ_by_case_alone() -> None:
    paths = tracked()
    assert len({path.lower() for path in paths}) == len(paths)


@pytest.mark.parametrize(
    "path",
    ["a/b:c", 'a"b', "a./b", "a /b", "x/AUX", "com1.py", "x/nul.tar.gz", "a\tb", "a?", "x" * 161],
)
def test_what_windows_refuses_is_found(path: str) -> None:
    assert illegal(path)
    assert not illegal("template/{{ package }}/console.py")
