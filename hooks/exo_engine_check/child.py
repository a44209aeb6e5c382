"""The plugin's process: bounded in time, memory and words, and ended with all that it started."""

import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .files import CannotRunError, reason, words

START = Path(__file__).parent / "inside" / "start.py"
MAX_EVENTS = 2_000_000  # bytes
MAX_WORDS = 10_000  # bytes kept of stdout and of stderr
POLL, WEIGH = 0.05, 0.2  # seconds
# What a plugin may know of whoever runs the check: no credentials are among it.
PASSED_ON = words(
    """PATH LANG LC_ALL LC_CTYPE TZ TMPDIR TEMP SYSTEMROOT VIRTUAL_ENV PYTHONPATH LD_LIBRARY_PATH
    DYLD_LIBRARY_PATH CUDA_VISIBLE_DEVICES"""
)


@dataclass(frozen=True)
class Limits:
    """How long a check may be silent, all of them together, and how much memory they may hold."""

    check: float
    deadline: float  # of time.monotonic()
    memory: int  # bytes


@dataclass
class Ended:
    """How a process has ended, and what it said."""

    how: str = ""  # empty: well; else "crashed with …" or "hung for …"
    hung: bool = False
    events: list[dict[str, Any]] = field(default_factory=list)
    stdout: bytes = b""
    stderr: bytes = b""

    def last_words(self) -> str:
        lines = self.stderr.decode("utf-8", "replace").strip().splitlines()
        return f": {lines[-1].strip()}" if lines else ""


def run(python: str, request: dict[str, Any], folder: Path, limits: Limits) -> Ended:
    """Run the checks of a request in a process of its own. Raises CannotRunError."""
    if os.name != "posix":
        raise CannotRunError("a plugin is run on Linux and macOS alone: use --static")
    _adopt_orphans()
    before = set(_parents())
    asked = folder / f"request-{len(request['checks'])}-{request['faultless']}.json"
    asked.write_text(json.dumps(request), encoding="utf-8")
    read, write = os.pipe()
    command = [python, str(START), str(write), str(asked)]
    environment = {k: os.environ[k] for k in PASSED_ON if k in os.environ} | {
        "EXO_HOME": request["home"],
        "HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # on matrices this small, threads wait for each other
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "utf-8",
    }
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=(write,),
        )
    except OSError as error:
        os.close(read)
        raise CannotRunError(f"--python {python}: {reason(error)}") from error
    finally:
        os.close(write)
    _ours.add(process.pid)
    try:
        return _Watch(process, read, limits).until_the_end()
    finally:
        _kill(process, before)
        _ours.discard(process.pid)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        os.close(read)


class _Watch:
    """Reads what a process says, and looks at its memory and the clock."""

    def __init__(self, process: subprocess.Popen[bytes], events: int, limits: Limits) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process, self.limits = process, limits
        self.said: dict[int, bytearray] = {}
        self.outputs = (events, process.stdout.fileno(), process.stderr.fileno())
        self.selector = selectors.DefaultSelector()
        for number in self.outputs:
            os.set_blocking(number, False)
            self.said[number] = bytearray()
            self.selector.register(number, selectors.EVENT_READ)
        self.read = 0  # bytes of events that are understood
        self.ended = Ended()
        self.weighed = time.monotonic()

    def until_the_end(self) -> Ended:
        heard = time.monotonic()
        while not self.ended.how:
            if self._listen():
                heard = time.monotonic()
            now = time.monotonic()
            code = self.process.poll()
            if code is not None or self._is_done():
                while self._listen():
                    pass
                if not self._is_done():
                    self.ended.how = f"crashed with {_code(code or 0)}"
                break
            if now - heard > self.limits.check or now > self.limits.deadline:
                silent = min(self.limits.check, now - heard)
                self.ended.how, self.ended.hung = f"hung for {silent:.0f} s", True
            elif self._holds_too_much(now):
                limit = self.limits.memory / 2**30
                self.ended.how = f"crashed with more than {limit:.1f} GiB of memory (--memory)"
        self.ended.stdout = bytes(self.said[self.outputs[1]])
        self.ended.stderr = bytes(self.said[self.outputs[2]])
        return self.ended

    def _holds_too_much(self, now: float) -> bool:
        if now - self.weighed < WEIGH:
            return False
        self.weighed = now
        return _resident(self.process.pid) > self.limits.memory

    def _is_done(self) -> bool:
        return any("done" in event for event in self.ended.events)

    def _listen(self) -> bool:
        """Take what is there; whether there was an event. What is too much is read and dropped."""
        for key, _ in self.selector.select(POLL):
            try:
                data = os.read(key.fd, 65536)
            except BlockingIOError:
                continue
            if not data:
                self.selector.unregister(key.fd)
            limit = MAX_EVENTS if key.fd == self.outputs[0] else MAX_WORDS
            said = self.said[key.fd]
            said += data[: max(0, limit - len(said))]
        return self._understand()

    def _understand(self) -> bool:
        said = self.said[self.outputs[0]]
        end = said.rfind(b"\n") + 1
        lines = bytes(said[self.read : end]).splitlines()
        self.read = max(end, self.read)
        events = [event for event in map(_event, lines) if event is not None]
        self.ended.events += events
        return bool(events)


_TEXTS = words("step begin end state why check message path host missing can value")


def _event(line: bytes) -> dict[str, Any] | None:
    """One event of the form that the child writes; the plugin could write others."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict):
        return None
    texts = all(isinstance(event[key], str) for key in _TEXTS if key in event)
    numbers = all(type(event[key]) is int for key in ("line", "answered") if key in event)
    return event if texts and numbers else None


def _code(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _parents() -> dict[int, int]:
    """Every process of this machine that can be seen, and its parent (Linux)."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            found[int(path.parent.name)] = int(fields[1])
        except (OSError, ValueError, IndexError):
            continue  # it has ended
    return found


def _resident(pid: int) -> int:
    """The memory that a process and its own hold: pages that are there, no reserved addresses."""
    parents, family = _parents(), {pid}
    while more := {child for child, of in parents.items() if of in family} - family:
        family |= more
    pages = 0
    for member in family:
        try:
            pages += int(Path(f"/proc/{member}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            continue
    return pages * os.sysconf("SC_PAGE_SIZE")


def _adopt_orphans() -> None:
    """What leaves the session of a child becomes a child of ours when its parent ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


_ours: set[int] = set()  # processes that run now


def _kill(process: subprocess.Popen[bytes], before: set[int]) -> None:
    """End the process, its session, and what has left the session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    me = os.getpid()
    for _ in range(100):  # each one that ends leaves us its own children
        left = {pid for pid, parent in _parents().items() if parent == me} - before - _ours
        for pid in left:
            with contextlib.suppress(ProcessLookupError, ChildProcessError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        if not left:
            return
