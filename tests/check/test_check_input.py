"""Nobody's project stops the check: broken, huge, deep, circular and hostile ones."""
# ruff: noqa: E501 - the hostile lines of a plugin are one line each

import os
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from checking import faults, plugin, run

PACKAGE, CONFIG = "exo_steps", "pyproject.toml"


@contextmanager
def within(seconds: float, clock: Callable[[], float] = time.process_time) -> Iterator[None]:
    """So many seconds of this process; with another clock of the wall, where it might wait."""
    start = clock()
    yield
    assert clock() - start < seconds


def add(copy: Path, file: str, content: str | bytes) -> None:
    path = copy / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_nothing_to_check(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "file.txt", tmp_path / "no.whl"):
        if path.suffix:
            path.write_bytes(b"PK\x03\x04")
        code, out, err = run(path)
        assert (code, out) == (2, "")
        assert err.startswith("exo-engine: ")
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    [
        "[project]\nname = 1\ndependencies = 'exo'\n",
        "[project]\nentry-points = []\nreadme = 1\nlicense = []\n",
        "project = 1\n",
        "[project]\nname='x'\n[project.entry-points]\n'exo.models' = 'x'\n",
        "[project]\nname='x'\n[project.optional-dependencies]\na = 1\n[tool.exo-engine]\nignore = 1",
        "[project]\nname='x'\n[tool]\nexo-engine = 1\nhatch = 1\n",
    ],
)
def test_toml_of_another_shape_is_no_traceback(tmp_path: Path, text: str) -> None:
    copy = plugin(tmp_path)
    add(copy, CONFIG, text)
    assert run(copy)[0] in (1, 2)


def test_a_group_without_quotes(tmp_path: Path) -> None:
    copy = plugin(tmp_path)
    text = (copy / CONFIG).read_text(encoding="utf-8")
    add(copy, CONFIG, text.replace('"exo.models"', "exo.models"))
    assert "in quotes" in faults(copy, static=True)["EX001"][0]


@pytest.mark.parametrize(
    "content",
    [b"x = '\xff'", b"\0\0", b"(" * 10_000, b"x = " + b"-" * 20_000 + b"1", b"#" * 3_000_000],
    ids=["not UTF-8", "binary", "deep", "deeper", "large"],
)
def test_a_source_that_is_none_is_a_finding(tmp_path: Path, content: bytes) -> None:
    copy = plugin(tmp_path)
    add(copy, f"{PACKAGE}/other.py", content)
    assert "other.py" in faults(copy, static=True)["EX002"][0]


def test_a_folder_that_leads_into_itself(tmp_path: Path) -> None:
    copy = plugin(tmp_path)
    (copy / PACKAGE / "again").symlink_to(copy / PACKAGE)
    (copy / PACKAGE / "self").symlink_to("self")
    (copy / PACKAGE / "lost.py").symlink_to("nothing.py")
    assert list(faults(copy, static=True)) == ["EX002"]


def test_pipes_and_links_to_them_are_not_waited_for(tmp_path: Path) -> None:
    copy = plugin(tmp_path)
    os.mkfifo(copy / "pipe")
    for name in (f"{PACKAGE}/pipe.py", f"{PACKAGE}/py.typed", "README.md", ".copier-answers.yml"):
        (copy / name).unlink(missing_ok=True)
        (copy / name).symlink_to(copy / "pipe")
    with within(30, time.monotonic):
        assert "no plain file" in faults(copy, static=True)["EX002"][0]
    (copy / CONFIG).unlink()
    (copy / CONFIG).symlink_to(copy / "pipe")
    with within(30, time.monotonic):
        assert run(copy, "--static")[0] in (1, 2)


def test_a_hostile_header_is_read_in_its_length(tmp_path: Path) -> None:
    copy = plugin(tmp_path)
    text = (copy / CONFIG).read_text(encoding="utf-8")
    blank = "\n".join(f"# [{' ' * 40_000}\n# {'a . ' * 10_000}" for _ in range(20))
    add(copy, CONFIG, text + '\n[tool.x]\ny = """\n' + blank.replace("# ", "") + '\n"""\n')
    with within(3):
        assert faults(copy, static=True) == {}


def test_many_entry_points(tmp_path: Path) -> None:
    copy = plugin(tmp_path)
    text = (copy / CONFIG).read_text(encoding="utf-8")
    lines = "".join(f'e{n} = "exo_steps.gone{n}:X"\n' for n in range(2_000))
    mark = '[project.entry-points."exo.models"]\n'
    add(copy, CONFIG, text.replace(mark, mark + lines))
    with within(4):
        assert len(faults(copy, static=True)["EX106"]) == 2_000


def test_many_packages(tmp_path: Path) -> None:
    copy = plugin(tmp_path)
    for n in range(3_000):
        add(copy, f"{PACKAGE}/sub{n}/__init__.py", "")
    with within(5):
        code, _, err = run(copy, "--static")
    assert code == 2
    assert "more than 5000 files" in err


def test_literals_are_not_worked_out(tmp_path: Path) -> None:
    copy = plugin(tmp_path)
    prime = (1 << 61) - 1
    numbers = ", ".join(str(n * prime) for n in range(1, 8_000))
    add(copy, f"{PACKAGE}/models.py", f"X = {{{numbers}}}\nMODELS = {{1: 9 ** 9 ** 9}}\n")
    with within(4):
        assert "EX002" not in faults(copy, static=True)


def test_reading_has_the_deadline_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = plugin(tmp_path)
    monkeypatch.setattr("exo_engine_check.run.read_plugin", lambda _: time.sleep(30))
    with within(25, time.monotonic):
        code, _, err = run(copy, "--timeout", "1")
    assert (code, err) == (2, "exo-engine: the check was not done after 1 s (--timeout)\n")


def wheel_of(copy: Path, target: Path, *more: tuple[str, bytes]) -> Path:
    """A wheel as a build tool would make it, with members of one's own."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(p for p in (copy / PACKAGE).iterdir() if p.is_file()):
            archive.write(path, f"{PACKAGE}/{path.name}")
        info = "exo_steps-0.1.0.dist-info"
        head = "Metadata-Version: 2.4\nName: exo-steps\nVersion: 0.1.0\nRequires-Python: >=3.11\n"
        needs = "Requires-Dist: numpy>=2.0\nRequires-Dist: prometheus-client>=0.20\n"
        archive.writestr(
            f"{info}/METADATA", f"{head}License-Expression: MIT\n{needs}\n# exo-steps\n"
        )
        groups = {
            "exo.inference_engines": "steps = exo_steps.engine:StepsInferenceEngine",
            "exo.models": "steps = exo_steps.models:MODELS",
            "exo.device_detectors": "steps = exo_steps.detection:detect_device",
        }
        text = "".join(f"[{group}]\n{entry}\n" for group, entry in groups.items())
        archive.writestr(f"{info}/entry_points.txt", text)
        for name, content in more:
            archive.writestr(name, content)
    return target


def test_a_wheel_is_loaded_and_its_engine_made(tmp_path: Path) -> None:
    wheel = wheel_of(plugin(tmp_path), tmp_path / "exo_steps-0.1.0-py3-none-any.whl")
    code, out, err = run(wheel)
    assert (code, err) == (0, "")
    assert "no fault" in out
    assert "EX801" in out  # a wheel names no device
    copy = plugin(tmp_path / "broken")
    add(copy, f"{PACKAGE}/detection.py", "def detect_device():\n    return 1\n")
    assert list(faults(wheel_of(copy, tmp_path / "b.whl"))) == ["EX502"]


@pytest.mark.parametrize("name", ["//a", "/a", "../a", "a/../../b", "c:/a", "a//b", "."])
def test_a_wheels_member_leads_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    wheel = wheel_of(plugin(tmp_path), tmp_path / "x.whl", (name, b"x"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    before = set(tmp_path.rglob("*"))
    with within(5):
        assert run(wheel, "--static")[0] in (0, 2)
    assert set(tmp_path.rglob("*")) == before
    assert not Path("/a").exists()


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exo_engine_check.files.MAX_WHEEL", 10_000_000)
    wheel = wheel_of(plugin(tmp_path), tmp_path / "x.whl", (f"{PACKAGE}/zeros", b"\0" * 20_000_000))
    assert "too large" in run(wheel)[2]


def test_a_static_check_runs_nothing_of_the_plugin(tmp_path: Path) -> None:
    copy = plugin(tmp_path)
    for path in (copy / PACKAGE).glob("*.py"):
        path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{path.read_text(encoding='utf-8')}")
    add(copy, "setup.py", f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert run(copy, "--static")[0] == 0
    assert not (tmp_path / "ran").exists()
    run(copy, "--select", "EX701")
    assert (tmp_path / "ran").exists()


def test_a_file_that_many_links_name_is_read_once(tmp_path: Path) -> None:
    copy = plugin(tmp_path)
    add(copy, f"{PACKAGE}/large.py", "x = [\n" + "    (1, 2, 3, 4, 5, 6, 7),\n" * 60_000 + "]\n")
    for n in range(60):
        (copy / PACKAGE / f"link{n}.py").symlink_to("large.py")
    with within(20):
        messages = faults(copy, static=True)["EX002"]
    assert len(messages) == 60
    assert "is a link to a file that is read already" in messages[0]


def test_a_link_that_leads_out_of_the_project_is_not_followed(tmp_path: Path) -> None:
    copy = plugin(tmp_path)
    (tmp_path / "secret.py").write_text("raise SystemExit\n")
    (copy / PACKAGE / "other.py").symlink_to(tmp_path / "secret.py")
    [message] = faults(copy, static=True)["EX002"]
    assert message.endswith("other.py: is a link that leads out of the project")


def test_a_package_of_a_hundred_megabytes_is_refused(tmp_path: Path) -> None:
    copy = plugin(tmp_path)
    for n in range(60):
        add(copy, f"{PACKAGE}/m{n}.py", "#" * 1_900_000)
    with within(5):
        code, _, err = run(copy, "--static")
    assert (code, "has more than 20 MB of Python" in err) == (2, True)


def test_a_project_that_wants_all_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exo_engine_check.files.MAX_MEMORY", 100_000_000)
    copy = plugin(tmp_path)
    add(copy, f"{PACKAGE}/large.py", "x = [" + "1, " * 600_000 + "]\n")
    code, out, err = run(copy, "--static")
    assert code in (1, 2)
    assert "MemoryError" in out or "GiB of memory" in err


def test_a_list_of_thirty_thousand_lines_is_read_in_its_length(tmp_path: Path) -> None:
    copy = plugin(tmp_path)
    text = (copy / CONFIG).read_text(encoding="utf-8")
    mark = "dependencies = [\n"
    lines = "".join(f'    "package-{n}>=1",\n' for n in range(30_000))
    add(copy, CONFIG, text.replace(mark, mark + lines))
    with within(8):
        assert faults(copy, static=True) == {}


def test_no_handler_of_errors_swallows_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(_: Path) -> None:
        try:
            time.sleep(30)
        except Exception:
            time.sleep(30)

    monkeypatch.setattr("exo_engine_check.run.read_plugin", slow)
    with within(25, time.monotonic):
        assert run(plugin(tmp_path), "--timeout", "1")[0] == 2
