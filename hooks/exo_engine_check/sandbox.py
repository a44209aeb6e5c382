"""The plugin's process: bounded in time, memory and words, and ended with all that it started."""

import contextlib
import ctypes
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from .files import CannotRunError, reason, words
from .inside.events import sealer

START = Path(__file__).parent / "inside"
MAX_OUTPUT = 100_000_000  # bytes of stdout, stderr or events, each in a file
MAX_MEMBERS = 1000  # processes and threads; a test server may have a thread a connection
WEIGH = 0.2  # seconds
# What a plugin may know of whoever runs the check: no credentials are among it.
PASSED_ON = words(
    """PATH LANG LC_ALL LC_CTYPE TZ TMPDIR TEMP SYSTEMROOT VIRTUAL_ENV PYTHONPATH LD_LIBRARY_PATH
    DYLD_LIBRARY_PATH CUDA_VISIBLE_DEVICES PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX"""
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


class Sandbox:
    """A process for the checks of a request. close() ends it, with all that it has started."""

    _all: ClassVar[list["Sandbox"]] = []  # that have not been ended

    def __init__(self, python: str, request: dict[str, Any], folder: Path) -> None:
        """Start it; it imports, and then waits for let_go(). Raises CannotRunError."""
        if os.name != "posix":
            raise CannotRunError("a plugin is run on Linux and macOS alone: use --static")
        if sys.platform == "linux":  # what leaves the child's session becomes a child of ours
            ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
        self._before = set(_processes())
        self._files = {name: folder / name for name in ("stdout", "stderr")}
        key, self._stack = secrets.token_hex(32), contextlib.ExitStack()
        (source, sink), (turn, self._turn) = os.pipe(), os.pipe()
        self._more = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - the stack closes it
        for end in (source, self._turn):
            self._stack.callback(os.close, end)
        self._stack.enter_context(self._more)
        self._reader = Reader(source, key)
        self._ended = Ended(events=self._reader.events)
        more = self._more.fileno()
        request = request | {"events": sink, "turn": turn, "more": more}
        request |= {"key": key, "parent": os.getpid()}
        try:
            self._process = self._start(python, request, folder, sink, turn, more)
        except OSError as error:
            self._stack.close()
            raise CannotRunError(f"--python {python}: {reason(error)}") from error
        finally:
            os.close(sink)
            os.close(turn)
        self._all.append(self)

    def _start(
        self, python: str, request: dict[str, Any], folder: Path, *passed: int
    ) -> subprocess.Popen[bytes]:
        environment = {k: os.environ[k] for k in PASSED_ON if k in os.environ} | {
            "EXO_HOME": request["home"],
            "HOME": str(folder),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",  # on matrices this small, threads wait for each other
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONIOENCODING": "utf-8",
        }
        with contextlib.ExitStack() as stack:
            stdin = stack.enter_context(tempfile.TemporaryFile(dir=folder))  # for the checks alone
            stdin.write(json.dumps(request).encode())
            stdin.seek(0)
            out, err = [stack.enter_context(path.open("wb")) for path in self._files.values()]
            return subprocess.Popen(
                [python, str(START)],
                cwd=folder,
                env=environment,
                stdin=stdin,
                stdout=out,
                stderr=err,
                pass_fds=passed,
                start_new_session=True,
            )

    def let_go(self, more: dict[str, Any]) -> None:
        """Let it have the device, and what it has to know more; of any length, so in a file."""
        self._more.write(json.dumps(more).encode())
        self._more.seek(0)
        with contextlib.suppress(BrokenPipeError):  # it has ended
            os.write(self._turn, b"1")

    def watch(self, limits: Limits) -> Ended:
        """Look at what it writes, at its size and the clock, until it ends."""
        ended, reader, process = self._ended, self._reader, self._process
        last = weighed = time.monotonic()
        while not ended.how and process.poll() is None:
            came, now = reader.read(0.05), time.monotonic()
            last = now if came else last
            if now - last > limits.silence or now > limits.deadline:
                ended.how = f"hung for {now - last:.0f} s"
            elif now - weighed > WEIGH:
                weighed, processes = now, _processes()
                for each in self._all:
                    each._weigh(processes, limits.memory)
        while reader.read(0):
            continue
        ended.stdout, ended.stderr = (_start_of(path) for path in self._files.values())
        if not ended.how and not any("done" in event for event in ended.events):
            ended.how = f"crashed with {_code(process.returncode)}"
        return ended

    def _weigh(self, processes: dict[int, tuple[int, int, int]], memory: int) -> None:
        """End it where it holds too much: pages that are there, no reserved addresses."""
        family = {self._process.pid}
        while more := {child for child, (of, *_) in processes.items() if of in family} - family:
            family |= more
        held = [processes[member] for member in family if member in processes]
        written = [self._reader.size, *(path.stat().st_size for path in self._files.values())]
        if sum(pages for *_, pages in held) * os.sysconf("SC_PAGE_SIZE") > memory:
            much = f"{memory / 2**30:.1f} GiB of memory (--memory)"
        elif sum(threads for _, threads, _ in held) > MAX_MEMBERS:
            much = f"{MAX_MEMBERS} threads and processes"
        elif max(written) > MAX_OUTPUT:
            much = f"{MAX_OUTPUT // 1_000_000} MB of output"
        else:
            return
        self._ended.how = f"crashed with more than {much}"
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """End it, its session, and what has left the session."""
        self._kill()
        self._all.remove(self)
        self._stack.close()
        me, others = os.getpid(), {each._process.pid for each in self._all}
        for _ in range(100):  # each one that ends leaves us its own children
            left = {pid for pid, (parent, *_) in _processes().items() if parent == me}
            left -= self._before | others
            for pid in left:
                with contextlib.suppress(ProcessLookupError, ChildProcessError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
            if not left:
                return


class Reader:
    """Reads the events of a process, each with its seal, as they come."""

    def __init__(self, source: int, key: str) -> None:
        self.source, self.seal, self.rest, self.size = source, sealer(key), b"", 0
        self.events: list[dict[str, Any]] = []

    def read(self, seconds: float) -> bool:
        """Whether something has come within a time. Raises CannotRunError."""
        if not select.select([self.source], [], [], seconds)[0]:
            return False
        data = os.read(self.source, 1 << 16)
        if not data:  # every writer has closed it
            time.sleep(min(seconds, 0.005))  # it ends now
        self.size += len(data)
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            content = line.partition(b" ")[2]
            if self.seal(content) != line + b"\n":
                raise CannotRunError(
                    "the plugin writes into the check's own messages: nothing in them can be "
                    "believed. Read what the plugin does before it runs again"
                )
            self.events.append(json.loads(content))
        return bool(data)


def _start_of(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(10_000).decode("utf-8", "replace").strip()


def _code(code: int) -> str:
    try:
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"


def _processes() -> dict[int, tuple[int, int, int]]:
    """Every process that can be seen: its parent, its threads and its resident pages (Linux)."""
    processes = {}
    for name in os.listdir("/proc") if sys.platform == "linux" else ():
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb", buffering=0) as file:
                    fields = file.read().rpartition(b")")[2].split()
                processes[int(name)] = int(fields[1]), int(fields[17]), int(fields[21])
            except (OSError, ValueError, IndexError):
                continue  # it has ended
    return processes
