"""The plugin's process: bounded in time, memory and words, and ended with all that it started."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .files import CannotRunError, reason, words

START = Path(__file__).parent / "inside"
MAX_OUTPUT = 100_000_000  # bytes of stdout, stderr or events, each in a file
MAX_MEMBERS = 1000  # processes and threads; a test server may have a thread a connection
WEIGH = 0.2  # seconds
# What a plugin may know of whoever runs the check: no credentials are among it.
PASSED_ON = words(
    """PATH LANG LC_ALL LC_CTYPE TZ TMPDIR TEMP SYSTEMROOT VIRTUAL_ENV PYTHONPATH LD_LIBRARY_PATH
    DYLD_LIBRARY_PATH CUDA_VISIBLE_DEVICES"""
)


@dataclass(frozen=True)
class Limits:
    """How long a check may be silent, all of them together, and how much memory they may hold."""

    silence: float
    deadline: float  # of time.monotonic()
    memory: int  # bytes


@dataclass
class Ended:
    """How a process has ended, and what it wrote."""

    how: str = ""  # empty: well; else "crashed with …" or "hung for …"
    events: list[dict[str, Any]] = field(default_factory=list)
    stdout: str = ""
    stderr: str = ""


def run(python: str, request: dict[str, Any], folder: Path, limits: Limits) -> Ended:
    """Run the checks of a request in a process of its own. Raises CannotRunError."""
    if os.name != "posix":
        raise CannotRunError("a plugin is run on Linux and macOS alone: use --static")
    if sys.platform == "linux":  # what leaves the child's session becomes a child of ours
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    before = set(_processes())
    files = {name: folder / name for name in ("request", "events", "stdout", "stderr")}
    files["request"].write_text(json.dumps(request | {"events": str(files["events"])}))
    files["events"].write_bytes(b"")
    environment = {k: os.environ[k] for k in PASSED_ON if k in os.environ} | {
        "EXO_HOME": request["home"],
        "HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # on matrices this small, threads wait for each other
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "utf-8",
    }
    with files["stdout"].open("wb") as stdout, files["stderr"].open("wb") as stderr:
        try:
            process = subprocess.Popen(
                [python, str(START), str(files["request"])],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        except OSError as error:
            raise CannotRunError(f"--python {python}: {reason(error)}") from error
    try:
        return _watch(process, files, limits)
    finally:
        _kill(process, before)


def _watch(process: subprocess.Popen[bytes], files: dict[str, Path], limits: Limits) -> Ended:
    """Look at what a process writes, at its size and the clock, until it ends; then read it all."""
    ended, size = Ended(), 0
    last = weighed = time.monotonic()
    while not ended.how and process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
        before, size, now = size, files["events"].stat().st_size, time.monotonic()
        last = now if size != before else last
        if now - last > limits.silence or now > limits.deadline:
            ended.how = f"hung for {now - last:.0f} s"
        elif now - weighed > WEIGH:
            weighed = now
            ended.how = _too_much(process.pid, files, limits)
    texts = {name: _read(files[name]) for name in ("events", "stdout", "stderr")}
    ended.events = [event for event in map(_event, texts.pop("events").splitlines()) if event]
    for name, text in texts.items():
        setattr(ended, name, text[:10_000].decode("utf-8", "replace").strip())
    if not ended.how and not any("done" in event for event in ended.events):
        ended.how = f"crashed with {_code(process.returncode)}"
    return ended


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_OUTPUT)


_NUMBERS = words("line good of")
_TEXTS = words("step begin end state why check message path host missing")


def _event(line: bytes) -> dict[str, Any] | None:
    """One event of the form that the child writes; the plugin could write others."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict):
        return None
    texts = all(isinstance(event[key], str) for key in _TEXTS & event.keys())
    return event if texts and all(type(event.get(key, 0)) is int for key in _NUMBERS) else None


def _too_much(pid: int, files: dict[str, Path], limits: Limits) -> str:
    """What a process and its own hold too much of: pages that are there, no reserved addresses."""
    processes, family = _processes(), {pid}
    while more := {child for child, (of, *_) in processes.items() if of in family} - family:
        family |= more
    held = [processes[member] for member in family if member in processes]
    if sum(pages for *_, pages in held) * os.sysconf("SC_PAGE_SIZE") > limits.memory:
        return f"crashed with more than {limits.memory / 2**30:.1f} GiB of memory (--memory)"
    if sum(threads for _, threads, _ in held) > MAX_MEMBERS:
        return f"crashed with more than {MAX_MEMBERS} threads and processes"
    if any(file.stat().st_size > MAX_OUTPUT for file in files.values()):
        return f"crashed with more than {MAX_OUTPUT // 1_000_000} MB of output"
    return ""


def _code(code: int) -> str:
    try:
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"


def _processes() -> dict[int, tuple[int, int, int]]:
    """Every process that can be seen: its parent, its threads and its resident pages (Linux)."""
    processes = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            processes[int(path.parent.name)] = int(fields[1]), int(fields[17]), int(fields[21])
        except (OSError, ValueError, IndexError):
            continue  # it has ended
    return processes


def _kill(process: subprocess.Popen[bytes], before: set[int]) -> None:
    """End the process, its session, and what has left the session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    me = os.getpid()
    for _ in range(100):  # each one that ends leaves us its own children
        left = {pid for pid, (parent, *_) in _processes().items() if parent == me} - before
        for pid in left:
            with contextlib.suppress(ProcessLookupError, ChildProcessError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        if not left:
            return
