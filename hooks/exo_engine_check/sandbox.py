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
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .files import CannotRunError, reason, words
from .inside.events import sealer

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
    files = {name: folder / name for name in ("request", "stdout", "stderr")}
    source, sink = os.pipe()
    key = secrets.token_hex(32)
    request = request | {"events": sink, "key": key, "parent": os.getpid()}
    environment = {k: os.environ[k] for k in PASSED_ON if k in os.environ} | {
        "EXO_HOME": request["home"],
        "HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # on matrices this small, threads wait for each other
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONIOENCODING": "utf-8",
    }
    files["request"].write_text(json.dumps(request))
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, source)
        streams = [stack.enter_context(files[name].open("wb")) for name in ("stdout", "stderr")]
        stdin = stack.enter_context(files["request"].open("rb"))
        files["request"].unlink()  # what is in it is for the checks alone
        try:
            process = subprocess.Popen(
                [python, str(START)],
                cwd=folder,
                env=environment,
                stdin=stdin,
                stdout=streams[0],
                stderr=streams[1],
                pass_fds=[sink],
                start_new_session=True,
            )
        except OSError as error:
            raise CannotRunError(f"--python {python}: {reason(error)}") from error
        finally:
            os.close(sink)
        stack.callback(_kill, process, before)
        return _watch(process, Reader(source, key), files, limits)


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


def _watch(
    process: subprocess.Popen[bytes], reader: Reader, files: dict[str, Path], limits: Limits
) -> Ended:
    """Look at what a process writes, at its size and the clock, until it ends."""
    ended = Ended(events=reader.events)
    last = weighed = time.monotonic()
    while not ended.how and process.poll() is None:
        came, now = reader.read(0.05), time.monotonic()
        last = now if came else last
        if now - last > limits.silence or now > limits.deadline:
            ended.how = f"hung for {now - last:.0f} s"
        elif now - weighed > WEIGH:
            weighed = now
            ended.how = _too_much(process.pid, files, reader.size, limits)
    while reader.read(0):
        continue
    ended.stdout, ended.stderr = (_start_of(files[name]) for name in ("stdout", "stderr"))
    if not ended.how and not any("done" in event for event in ended.events):
        ended.how = f"crashed with {_code(process.returncode)}"
    return ended


def _start_of(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(10_000).decode("utf-8", "replace").strip()


def _too_much(pid: int, files: dict[str, Path], events: int, limits: Limits) -> str:
    """What a process and its own hold too much of: pages that are there, no reserved addresses."""
    processes, family = _processes(), {pid}
    while more := {child for child, (of, *_) in processes.items() if of in family} - family:
        family |= more
    held = [processes[member] for member in family if member in processes]
    if sum(pages for *_, pages in held) * os.sysconf("SC_PAGE_SIZE") > limits.memory:
        return f"crashed with more than {limits.memory / 2**30:.1f} GiB of memory (--memory)"
    if sum(threads for _, threads, _ in held) > MAX_MEMBERS:
        return f"crashed with more than {MAX_MEMBERS} threads and processes"
    if max(events, *(files[name].stat().st_size for name in ("stdout", "stderr"))) > MAX_OUTPUT:
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
    for name in os.listdir("/proc") if sys.platform == "linux" else ():
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb", buffering=0) as file:
                    fields = file.read().rpartition(b")")[2].split()
                processes[int(name)] = int(fields[1]), int(fields[17]), int(fields[21])
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
