"""Bad input is exit code 2 or a finding with a sentence; no code of the plugin ever runs."""

import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import guide_plugin as guide
import pytest
from checking import copy_of, ids, run
from exo_engine_check.run import check


@pytest.fixture
def plugin(rkllm_plugin: Path, tmp_path: Path) -> Path:
    return copy_of(rkllm_plugin, tmp_path / "exo-rkllm")


def assert_refused(path: Path, says: str) -> None:
    code, out, err = run(path)
    assert (code, out) == (2, "")
    assert err.startswith("exo-engine: ")
    assert err.count("\n") == 1
    assert says in err


def test_no_pyproject(tmp_path: Path) -> None:
    assert_refused(tmp_path, "neither a pyproject.toml nor a wheel")
    (tmp_path / "setup.py").touch()
    assert_refused(tmp_path, "exo-engine check dist/*.whl")


def test_nothing_there(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nothing", "no such file or directory")


def test_a_file_that_is_no_wheel(tmp_path: Path) -> None:
    path = tmp_path / "plugin.txt"
    path.touch()
    assert_refused(path, "neither a folder nor a wheel")


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + b"\0" * 17])
def test_a_wheel_that_is_no_zip(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plugin-1-py3-none-any.whl"
    path.write_bytes(content)
    assert_refused(path, "is no wheel")


def test_a_zip_that_is_no_wheel(tmp_path: Path) -> None:
    path = tmp_path / "plugin-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "")
    assert_refused(path, "neither a pyproject.toml nor a wheel")


def test_a_wheel_with_a_damaged_member(tmp_path: Path) -> None:
    path = tmp_path / "plugin-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("p-1.dist-info/METADATA", "Name: p\n")
        archive.writestr("p-1.dist-info/entry_points.txt", "[exo.models]\np = p:M\n")
        archive.writestr("p/__init__.py", "M = {}\n" * 100)
    data = path.read_bytes()
    at = data.rindex(b"p/__init__.py", 0, data.index(b"PK\x01\x02")) + len("p/__init__.py")
    path.write_bytes(data[:at] + b"\xff" * 5 + data[at + 5 :])
    code, out, _ = run(path)
    assert code == 1
    assert "p/__init__.py: can't be read" in out


@pytest.mark.parametrize("text", ["[project", "a = 1\na = 2\n", "x = [" * 5000])
def test_broken_toml(tmp_path: Path, text: str) -> None:
    plugin = guide.mended(tmp_path, config=text)
    assert ids(plugin) == ["EX001"]


@pytest.mark.parametrize(
    "text",
    [
        "project = 1",
        "project = []",
        "[project]\nentry-points = 1",
        "tool = 3",
        "[tool]\nexo-engine = []",
        "[project.entry-points]\n'exo.models' = 'x'",
        "[project.entry-points.'exo.models']\na = 3",
        "[project.entry-points.exo.models]\na = 'exo_myengine.models:MY_MODELS'",
        "[project]\ndependencies = 'exo'\noptional-dependencies = []\nname = []",
        "[project]\nreadme = 3\nlicense = 3\nclassifiers = 3\ndynamic = 3",
        "[tool.hatch.build.targets]\nwheel = 3",
        "[tool.repo-review]\nignore = 3\nselect = 3",
    ],
)
def test_toml_of_another_shape_is_no_traceback(tmp_path: Path, text: str) -> None:
    assert ids(guide.mended(tmp_path, config=text))


def test_metadata_that_is_no_text(tmp_path: Path) -> None:
    plugin = guide.mended(tmp_path)
    (plugin / "pyproject.toml").write_bytes(b"\xff\xfe")
    report = check(plugin, [], [])
    assert [(f.id, f.finding.message) for f in report.faults] == [
        ("EX001", "the file is not UTF-8 text")
    ]


def test_syntax_errors_have_a_line(tmp_path: Path) -> None:
    plugin = guide.mended(tmp_path, engine="import numpy\n\nclass X(:\n")
    report = check(plugin, ["EX002"], [])
    [fault] = report.faults
    assert str(fault.finding.place) == "exo_myengine/engine.py:3"
    assert "is no Python" in fault.finding.message


@pytest.mark.parametrize("text", ["(" * 5000, "x = " + "-" * 100_000 + "1", "a" + ".c" * 9000])
def test_source_that_is_too_deep_is_no_crash(tmp_path: Path, text: str) -> None:
    plugin = guide.mended(tmp_path)
    (plugin / "exo_myengine" / "deep.py").write_text(text, encoding="utf-8")
    assert set(ids(plugin)) <= {"EX002"}


@pytest.mark.parametrize("content", [b"\x7fELF\0\0", b"\xff\xd8\xff"])
def test_a_binary_file(tmp_path: Path, content: bytes) -> None:
    plugin = guide.mended(tmp_path)
    (plugin / "exo_myengine" / "blob.py").write_bytes(content)
    (plugin / "exo_myengine" / "weights.bin").write_bytes(content)
    assert ids(plugin) == ["EX002"]


def test_a_file_of_50_mb(tmp_path: Path) -> None:
    plugin = guide.mended(tmp_path)
    with (plugin / "exo_myengine" / "table.py").open("wb") as file:
        file.truncate(50_000_000)
    with (plugin / "weights.bin").open("wb") as file:
        file.truncate(50_000_000)
    report = check(plugin, [], [])
    [fault] = report.faults
    assert fault.finding.message == "is larger than 2 MB, too large to be a source"


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_links_that_lead_in_a_circle(tmp_path: Path) -> None:
    plugin = guide.mended(tmp_path)
    package = plugin / "exo_myengine"
    (package / "again").symlink_to(package)
    (package / "up").symlink_to(plugin)
    (plugin / "loop").symlink_to(plugin / "loop")
    assert ids(plugin) == []
    (package / "loop.py").symlink_to(package / "loop.py")
    assert ids(plugin) == ["EX002"]
    (plugin / "README.md").unlink()
    (plugin / "README.md").symlink_to(plugin / "README.md")
    assert ids(plugin) == ["EX002", "EX203"]


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of a user who may not read everything."""
    if not hasattr(os, "seteuid"):
        pytest.skip("this system has no such users")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    # The user may not read the environment either, and the command imports late.
    known = guide.mended(folder / "known")
    (known / "exo_myengine" / "py.typed").unlink()
    assert run(known, "--fix")[0] == 0
    assert run(folder / "nothing")[0] == 2
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(was)
        shutil.rmtree(folder)


def test_no_permission(unprivileged: Path) -> None:
    plugin = guide.mended(unprivileged / "p")
    package = plugin / "exo_myengine"
    (package / "secret.py").touch(mode=0)
    assert ids(plugin) == ["EX002"]
    (package / "py.typed").unlink()
    package.chmod(0o500)
    assert run(plugin, "--fix") == (
        2,
        "",
        f"exo-engine: {package / 'py.typed'}: permission denied\n",
    )
    package.chmod(0)
    assert "exo_myengine: can't be listed: permission denied" in run(plugin)[1]
    package.chmod(0o700)
    (plugin / "pyproject.toml").chmod(0)
    assert set(ids(plugin)) == {"EX001", "EX002", "EX206"}
    plugin.chmod(0)
    try:
        assert_refused(plugin, "permission denied")
    finally:
        plugin.chmod(0o700)


def test_a_refusal_of_the_system_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `test_no_permission`, for a user who may read everything."""
    plugin = guide.mended(tmp_path)
    real = Path.open

    def refuse(path: Path, *args: object, **kwargs: object) -> object:
        if path.name == "engine.py":
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    report = check(plugin, ["EX002"], [])
    assert [f.finding.message for f in report.faults] == ["can't be read: permission denied"]
    monkeypatch.setattr(os, "listdir", lambda path: refuse(Path("engine.py")))
    assert_refused(plugin, "permission denied")


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    plugin = guide.mended(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(plugin / "exo_myengine" / "pipe.py")
    assert ids(plugin) == []


TRIP = "import pathlib\npathlib.Path({path!r}).touch()\n"


def test_a_static_check_runs_nothing_of_the_plugin(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = tmp_path / "tripped"
    monkeypatch.syspath_prepend(str(plugin))
    for path in [*plugin.rglob("*.py"), plugin / "setup.py", plugin / "conftest.py"]:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(f"{text}\n{TRIP.format(path=str(wire))}", encoding="utf-8")
    (plugin / "exo_rkllm" / "sitecustomize.py").write_text(TRIP.format(path=str(wire)))
    before = set(sys.modules)
    assert ids(plugin) == []
    assert not wire.exists()
    assert not [n for n in set(sys.modules) - before if n.startswith(("exo_rkllm", "exo."))]
    exec(compile(TRIP.format(path=str(wire)), "trip", "exec"))
    assert wire.exists(), "the wire itself works"


HOSTILE = """\
MY_MODELS = {f"m{i}": {"layers": 1, "repo": {"MyInferenceEngine": "a/b"}} for i in range(10**9)}
"""


@pytest.mark.parametrize(
    "models",
    [
        HOSTILE,
        "MY_MODELS = MY_MODELS",
        "A = B\nB = A\nMY_MODELS = A",
        "MY_MODELS = {'a' * 10**10: 1}",
        "MY_MODELS = dict(zip(range(10**9), range(10**9)))",
        "MY_MODELS = {f'{x:>1000000000}': 1 for x in 'ab'}",
        "MY_MODELS = '%1000000000d' % 1",
        "MY_MODELS = {y: 1 for x in range(100000) for y in range(100000)}",
        "MY_MODELS = " + "{'a': " * 80 + "1" + "}" * 80,
        "MY_MODELS = [" + "(" * 60 + ")" * 60 + "]",
        "MY_MODELS = {[]: 1}",
        "MY_MODELS = {'a': 1}['b']",
        "from .models import MY_MODELS",
        "from .other import *",
    ],
)  # fmt: skip
def test_a_value_is_never_worked_out_for_long(tmp_path: Path, models: str) -> None:
    check(guide.mended(tmp_path, models=models), [], [])


def test_the_wheel_of_a_broken_plugin(plugin: Path, tmp_path: Path) -> None:
    from test_rendered_plugin import build_wheel

    config = plugin / "pyproject.toml"
    text = config.read_text(encoding="utf-8")
    text = text.replace('"exo.models"', '"exo.model"').replace(
        "dependencies = [", "dependencies = ['exo',"
    )
    config.write_text(text.replace('readme = "README.md"\n', ""), encoding="utf-8")
    shutil.rmtree(plugin / "exo_rkllm" / "__pycache__", ignore_errors=True)
    (plugin / "exo_rkllm" / "py.typed").unlink()
    assert ids(build_wheel(plugin, tmp_path / "dist")) == ["EX104", "EX201", "EX203", "EX206"]


def test_a_group_without_quotes(tmp_path: Path) -> None:
    config = guide.GOOD_CONFIG.replace('"exo.models"', "exo.models")
    [fault] = check(guide.mended(tmp_path, config=config), [], []).faults
    assert fault.id == "EX001"
    assert fault.finding.message.endswith('in quotes: [project.entry-points."exo.models"]')
