"""The plugin's process: whatever the plugin does ends with a sentence and leaves nothing behind."""
# ruff: noqa: E501 - the hostile lines of a plugin are one line each

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checking import PLUGINS, SHORT, faults, plugin, run
from exo_engine_check.checks import running_checks
from exo_engine_check.run import Options, Report, check

ENGINE, DETECTION = "exo_steps/engine.py", "exo_steps/detection.py"
EXO_PYTHON = os.environ.get("EXO_PYTHON")


def with_line(folder: Path, line: str, file: str = ENGINE, after: str = "import asyncio\n") -> Path:
    """The plugin with a line of its own at the top of a file."""
    copy = plugin(folder)
    text = (copy / file).read_text(encoding="utf-8")
    assert after in text
    (copy / file).write_text(text.replace(after, f"{after}{line}\n", 1), encoding="utf-8")
    return copy


def states(report: Report) -> dict[str, str]:
    return {result.id: result.state for result in report.results}


LOOP = "import itertools; any(None for _ in itertools.repeat(0))"
ENDS = {
    "a crash": ("import ctypes; ctypes.string_at(0)", "crashed", "signal SIGSEGV"),
    "an exit that passes": ("import os; os._exit(0)", "crashed", "exit code 0"),
    "a signal": ("import os; os.kill(os.getpid(), 9)", "crashed", "signal SIGKILL"),
    "memory without end": (
        "x = [bytes([n % 255 + 1]) * (1 << 26) for n in range(10**4)]",
        "crashed",
        "memory",
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_an_engine_that_ends_the_process(tmp_path: Path, name: str) -> None:
    line, state, says = ENDS[name]
    copy = with_line(tmp_path, line)
    report = check(copy, Options(select=SHORT, memory=0.5))
    assert states(report)["EX701"] == state
    [fault] = (fault for _, fault in report.faults)
    assert says in fault.message
    assert "importing exo_steps.engine" in fault.message
    # What doesn't need the engine's module is still seen; the rest says why it is not.
    assert states(report)["EX502"] == states(report)["EX401"] == "passed"
    [why] = {result.why for result in report.with_state("not run")}
    assert why.startswith("importing exo_steps.engine crashed")


@pytest.mark.parametrize("line", [LOOP, "import time; time.sleep(600)"])
def test_an_endless_import_is_a_hang(
    tmp_path: Path, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exo_engine_check.processes.CHECK_SECONDS", 0.5)
    begun = time.monotonic()
    report = check(with_line(tmp_path, line), Options(timeout=6))
    assert states(report)["EX701"] == "hung"
    assert time.monotonic() - begun < 8


def test_the_deadline_is_one_for_all(tmp_path: Path) -> None:
    begun = time.monotonic()
    report = check(with_line(tmp_path, LOOP), Options(timeout=2))
    assert time.monotonic() - begun < 6
    assert states(report)["EX701"] in {"hung", "not run"}  # a busy machine may not come to it
    assert "passed" not in {states(report)[name] for name in running_checks()}


def test_addresses_are_no_memory(tmp_path: Path) -> None:
    reserved = "import mmap; X = mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | 0x4000)"
    assert faults(with_line(tmp_path, reserved), "EX701", "EX801") == {}


def test_a_flood_of_words_is_read_and_dropped(tmp_path: Path) -> None:
    copy = with_line(tmp_path, "import os; [os.write(n, b'x' * 99_999) for n in (1, 2) * 300]")
    [message] = faults(copy, "EX7", "EX952")["EX952"]
    assert message == f"the plugin writes to stdout: {'x' * 80!r}"


FORGED = """
import os, json
for fd in range(3, 30):
    for event in ({"done": True}, {"check": 1, "message": []}, {"check": "EX401", "message": "forged"},
                  {"end": "EX999", "state": "passed"}, [], "x" * 5_000_000):
        try: os.write(fd, json.dumps(event).encode() + b"\\n")
        except OSError: pass
while True: pass
"""


def test_events_that_the_plugin_writes_are_no_more_than_faults(tmp_path: Path) -> None:
    copy = with_line(tmp_path, FORGED)
    begun = time.monotonic()
    report = check(copy, Options(timeout=2))
    assert time.monotonic() - begun < 10
    assert "EX999" not in states(report)


SURVIVORS = """
import os, subprocess, sys
CODE = "import os, time, sys\\nif os.fork() == 0:\\n os.setsid()\\n if os.fork() == 0: time.sleep(300)\\n"
subprocess.run([sys.executable, "-c", CODE, "exo-engine-survivor"], env={})
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives a process its orphans")
def test_children_that_outlive_the_plugin_are_ended(tmp_path: Path) -> None:
    faults(with_line(tmp_path, SURVIVORS), "EX701")
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, encoding="utf-8").stdout
    assert "exo-engine-survivor" not in listed


FORKS = "import os\nwhile True:\n    os.fork()"
THREADS = "import threading, time\nfor _ in range(10**5):\n    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"


@pytest.mark.parametrize("line", [FORKS, THREADS])
def test_a_crowd_is_refused(tmp_path: Path, line: str) -> None:
    messages = str(faults(with_line(tmp_path, line), "EX7"))
    assert "forks more than 6" in messages or "more than 1000 threads" in messages


def test_the_environment_is_not_the_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "1")
    monkeypatch.setenv("EXO_HOME", "/nonexistent")
    line = "import os; assert not {'SECRET_TOKEN'} & os.environ.keys(), 'seen'"
    copy = with_line(tmp_path, f"{line}; assert os.environ['EXO_HOME'] != '/nonexistent'")
    assert faults(copy, "EX701") == {}


def test_a_terminal_is_not_steered(tmp_path: Path) -> None:
    copy = with_line(tmp_path, "raise RuntimeError('a\\x1b]0;title\\x07\\x1b[31mred')")
    for form in ("text", "json", "github"):
        out = run(copy, "--format", form, "--select", "EX701")[1]
        assert "\x1b" not in out
        assert "\\u001b" not in out


def test_a_library_that_is_missing_here_is_no_fault(tmp_path: Path) -> None:
    copy = with_line(tmp_path, "import steps_runtime")
    config = copy / "pyproject.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("dependencies = [\n", 'dependencies = [\n "steps-runtime",\n'))
    code, _, err = run(copy)
    assert code == 2
    assert "has no steps_runtime, which the plugin requires" in err
    assert "--static" in err
    assert run(copy, "--static")[0] == 0


def test_a_python_that_is_none(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho no exo here >&2\nexit 3\n")
    script.chmod(0o755)
    assert "can't start: no exo here" in run(PLUGINS / "steps", "--python", script)[2]
    code, _, err = run(PLUGINS / "steps", "--python", tmp_path / "nothing")
    assert code == 2
    assert "no such file" in err


def test_an_engine_on_one_nodes_exo_alone_is_driven(tmp_path: Path) -> None:
    """The checks that need no device are run without one, and the rest says why it is not."""
    copy = plugin(tmp_path)
    config = copy / "pyproject.toml"
    config.write_text(config.read_text(encoding="utf-8").partition("[tool.exo-engine]")[0])
    code, out, _ = run(copy)
    assert code == 0
    assert "EX801" in out
    assert "names no device" in out
    code, _, err = run(copy, "--select", "EX801")
    assert code == 2
    assert "names no device" in err


@pytest.mark.skipif(not EXO_PYTHON, reason="EXO_PYTHON names no Python that has exo")
@pytest.mark.parametrize("name", ["steps", "answers"])
def test_and_on_exo_itself(name: str) -> None:
    report = check(PLUGINS / name, Options(python=str(EXO_PYTHON)))
    assert report.faults == []
    assert "exo itself" in report.notes[0]


def test_a_printed_case_runs_alone(tmp_path: Path) -> None:
    copy = with_line(tmp_path, "raise RuntimeError('no')")
    out = run(copy)[1]
    [command] = [line for line in out.splitlines() if line.startswith("    alone: ")]
    _, _, *arguments = shlex.split(command.partition(": ")[2])
    code, alone, _ = run(*arguments)
    assert code == 1
    assert "1 fault, 0 checks passed" in alone
