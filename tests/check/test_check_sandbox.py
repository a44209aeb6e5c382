"""The plugin's process: whatever the plugin does ends with a sentence and leaves nothing behind."""
# ruff: noqa: E501 - the hostile lines of a plugin are one line each

import os
import shlex
import subprocess
import sys
import time
import venv
from functools import partial
from pathlib import Path

import guide_plugin as guide
import pytest
from checking import PLUGINS, SHORT, faults, plugin, run
from exo_engine_check.checks import running_checks
from exo_engine_check.run import Options, Report, check
from exo_engine_check.sandbox import Limits

ENGINE, DETECTION = "exo_steps/engine.py", "exo_steps/detection.py"
EXO_PYTHON = os.environ.get("EXO_PYTHON")
EXO_0_3_PYTHON = os.environ.get("EXO_0_3_PYTHON")


def with_line(folder: Path, line: str, file: str = ENGINE, after: str = "import asyncio\n") -> Path:
    """The plugin with a line of its own at the top of a file."""
    copy = plugin(folder)
    text = (copy / file).read_text(encoding="utf-8")
    assert after in text
    (copy / file).write_text(text.replace(after, f"{after}{line}\n", 1), encoding="utf-8")
    return copy


def states(report: Report) -> dict[str, str]:
    return {result.id: result.state for result in report.results}


LOOP = "import ctypes; ctypes.PyDLL(None).sleep(600)"  # no thread of Python's goes on meanwhile
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
    short = partial(Limits, 4.0)
    monkeypatch.setattr("exo_engine_check.processes.Limits", lambda _, *others: short(*others))
    begun = time.monotonic()
    report = check(with_line(tmp_path, line), Options(timeout=120))
    assert states(report)["EX701"] == "hung"
    assert time.monotonic() - begun < 60


def test_the_deadline_is_one_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exo_engine_check.processes.CHECK_SECONDS", 60.0)
    begun = time.monotonic()
    report = check(with_line(tmp_path, LOOP), Options(timeout=2))
    assert time.monotonic() - begun < 30
    assert states(report)["EX701"] in {"hung", "not run"}  # a busy machine may not come to it
    assert "passed" not in {states(report)[name] for name in running_checks()}


def test_the_device_is_one_processs_at_a_time(tmp_path: Path) -> None:
    """The one that has it first keeps it for a while; the other one would have come to it then."""
    held = f"import fcntl; HELD = open({str(tmp_path / 'device')!r}, 'w'); fcntl.lockf(HELD, 6)"
    line = f"{held}; import time; time.sleep(0.5)"
    copy = with_line(tmp_path, line, "exo_steps/tiny.py", "import json\n")
    assert faults(copy, "EX801", "EX852") == {}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process holds")
def test_who_waits_for_the_device_is_weighed_too(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    large = f"import os; open({str(mark)!r}, 'w').write(str(os.getpid())); {ENDS['memory without end'][0]}"
    copy = with_line(tmp_path, large, "exo_steps/today.py", "import sys\n")
    looks = f"""
import time
from pathlib import Path
END = time.monotonic() + 30
while not Path({str(mark)!r}).exists() or Path('/proc', Path({str(mark)!r}).read_text()).exists():
    assert time.monotonic() < END, 'the other process goes on'
    time.sleep(0.05)
"""
    engine = copy / ENGINE
    engine.write_text(engine.read_text().replace("import asyncio\n", f"import asyncio\n{looks}", 1))
    report = check(copy, Options(select=["EX701", "EX851"], timeout=240, memory=0.5))
    assert [states(report)[name] for name in ("EX701", "EX851")] == ["passed", "crashed"]
    assert "memory" in str(report.faults)


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
    try: os.lseek(fd, 0, 0); os.ftruncate(fd, 0)
    except OSError: pass
    for event in ({"host": "exo 0.0 itself"}, {"begin": "EX801"}, {"end": "EX801", "state": "passed"}, {"done": True}):
        try: os.write(fd, b"0" * 16 + b" " + json.dumps(event).encode() + b"\\n")
        except OSError: pass
os._exit(0)
"""


QUIET = """
import contextlib, os
for fd in range(3, 30):
    with contextlib.suppress(OSError):
        os.write(fd, b"\\n")
"""


@pytest.mark.parametrize("garbage", [FORGED, QUIET])
def test_a_plugin_that_writes_a_verdict_of_its_own_is_seen(tmp_path: Path, garbage: str) -> None:
    code, out, err = run(with_line(tmp_path, garbage), "--report", tmp_path / "TABLE.md")
    assert (code, "EX801" in out) == (2, False)
    assert "the plugin writes into the check's own messages" in err
    assert not (tmp_path / "TABLE.md").exists()


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


LOOKS = """
import os
for pid in {str(os.getppid()), *filter(str.isdigit, os.listdir('/proc'))} - {str(os.getpid())}:
    try: assert b'SECRET' not in open(f'/proc/{pid}/environ', 'rb').read(), 'seen'
    except OSError: pass
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process give that up")
def test_no_environment_of_another_process_can_be_read(tmp_path: Path) -> None:
    """A process of its own has the secret, as a shell that starts the check would."""
    copy = with_line(tmp_path, LOOKS)
    command = [sys.executable, "-m", "exo_engine_check.cli", "check", "--select", "EX701", copy]
    done = subprocess.run(
        command, env=os.environ | {"TOKEN": "SECRET"}, capture_output=True, encoding="utf-8"
    )
    assert (done.returncode, "seen" in done.stdout) == (0, False), done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_plugin_ends_with_the_checker(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    line = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    copy = with_line(tmp_path, line)
    command = [sys.executable, "-m", "exo_engine_check.cli", "check", copy]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 50
    while not (mark.exists() and mark.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    stat = Path(f"/proc/{mark.read_text()}/stat")
    while stat.exists() and stat.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not stat.exists() or stat.read_text().split()[2] == "Z"


FOREIGN = "::error file=x::forged"


@pytest.mark.parametrize("form", ["text", "json", "github"])
def test_no_word_of_a_plugin_is_a_command(tmp_path: Path, form: str) -> None:
    """In messages, paths, reasons and rows; of workflows, of terminals, and no line of its own."""
    copy = with_line(tmp_path, f"raise RuntimeError('a\\x9b31m\\n{FOREIGN}')")
    (copy / "exo_steps" / "new\nline\x1b[31m.py").write_text("(")
    config = copy / "pyproject.toml"
    tables = f'[tool.exo-engine.ignore]\nEX503 = "\\u009b31m {FOREIGN}"\n'
    tables += f'[tool.exo-engine.cannot]\n"{FOREIGN} ##[error]row" = "##[error]x\\u202e"\n'
    config.write_text(config.read_text(encoding="utf-8") + tables, encoding="utf-8")
    out = run(copy, "--format", form, "--select", "EX0,EX5,EX701")[1]
    commands = [line for line in out.splitlines() if line.lstrip().startswith("::")]
    assert [line for line in commands if "title=EX" not in line and "::notice::" not in line] == []
    assert "##[" not in out
    assert not {"\x1b", "\x9b", "\u202e"} & set(out)


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
    assert "has no steps_runtime, which the plugin needs" in err
    assert "-m pip install steps-runtime, or name another Python" in err
    assert run(copy, "--static")[0] == 0


def test_a_python_by_a_relative_path_is_the_one_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)  # the link itself is asked for
    monkeypatch.chdir(tmp_path)
    code, _, err = run(PLUGINS / "steps", "--python", "bin/python", "--select", "EX3")
    assert (code, err) == (0, "")


def test_a_python_that_is_none(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho no exo here >&2\nexit 3\n")
    script.chmod(0o755)
    assert "can't start: no exo here" in run(PLUGINS / "steps", "--python", script)[2]
    bare = tmp_path / "bare" / "bin" / "python"
    venv.create(tmp_path / "bare", symlinks=True)
    code, out, err = run(guide.as_it_is(tmp_path / "guide"), "--python", bare)
    assert code == 1
    assert "EX301" in out
    assert err.endswith(
        f"has no numpy, which the plugin needs: {bare} -m pip install numpy, or name another Python with --python\n"
    )
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
    assert report.hosts["0.0"] == "exo 0.0 itself"


@pytest.mark.skipif(not EXO_0_3_PYTHON, reason="EXO_0_3_PYTHON names no Python that has exo 0.3")
def test_and_on_exo_0_3_itself() -> None:
    report = check(PLUGINS / "steps", Options(python=str(EXO_0_3_PYTHON)))
    assert report.faults == []
    assert report.hosts == {"0.0": "the stand-in for exo 0.0", "0.3": "exo 0.3 itself"}
    assert {r.state for r in report.results if r.id.startswith("EX85")} == {"passed"}


def test_a_printed_case_runs_alone(tmp_path: Path) -> None:
    copy = with_line(tmp_path, "raise RuntimeError('no')")
    out = run(copy)[1]
    [command] = [line for line in out.splitlines() if line.startswith("    alone: ")]
    _, _, *arguments = shlex.split(command.partition(": ")[2])
    code, alone, _ = run(*arguments)
    assert code == 1
    assert "1 fault, 0 checks passed" in alone
