"""Audit hooks: crowds are refused, calls that block the event loop are noted, faults are played."""

import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .core import Report

MAX_THREADS = 512  # a test server that the plugin brings may have one for each connection
MAX_FORKS = 6
MAX_PROCESSES = 32

_PROGRAMS = ("subprocess.Popen", "os.posix_spawn", "os.system", "os.exec", "os.spawn", "pty.spawn")
Hook = Callable[[str, tuple[Any, ...]], None]
_hooks: list[Hook] = []  # an audit hook can't be taken away again: one stays, and asks these


@contextmanager
def auditing(hook: Hook) -> Iterator[None]:
    """Let a function see every audit event; what it raises, the audited call raises."""
    _hooks.append(hook)
    try:
        yield
    finally:
        _hooks.remove(hook)


def install(report: Report) -> None:
    """Refuse threads and processes beyond a number that no plugin needs."""
    counts = {"forks": 0, "processes": 0}
    most = {"forks": MAX_FORKS, "processes": MAX_PROCESSES}

    def refuse(kind: str, count: int) -> None:
        text = f"the plugin started more than {count} {kind}"
        if text not in report.crowds:
            report.crowds.append(text)
        raise RuntimeError(f"more than {count} {kind}")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        kind = "forks" if event in {"os.fork", "os.forkpty"} else ""
        kind = "processes" if event in _PROGRAMS else kind
        if kind:
            counts[kind] += 1
            if counts[kind] > most[kind]:
                refuse(kind, most[kind])
        for other in list(_hooks):
            other(event, arguments)

    start = threading.Thread.start

    @functools.wraps(start)
    def bounded_start(thread: threading.Thread) -> None:
        if threading.active_count() > MAX_THREADS:
            refuse("threads", MAX_THREADS)
        return start(thread)

    sleep = time.sleep

    @functools.wraps(sleep)
    def audited_sleep(seconds: float) -> None:
        sys.audit("time.sleep", seconds)
        sleep(seconds)

    # Python 3.11 has no audit event for a new thread, nor for a sleep.
    setattr(threading.Thread, "start", bounded_start)  # noqa: B010 - mypy knows its type
    setattr(time, "sleep", audited_sleep)  # noqa: B010
    sys.addaudithook(hook)


def blocking(noted: dict[str, None]) -> Hook:
    """A hook that notes what waits in a plain call on this thread: the event loop's."""
    loop_thread = threading.get_ident()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if threading.get_ident() != loop_thread:
            return
        if event == "time.sleep" and arguments[0] > 0.02:
            noted[f"time.sleep({arguments[0]:g})"] = None
        elif event == "socket.connect" and arguments[0].gettimeout() != 0:
            noted["a blocking connect()"] = None
        elif event in {"subprocess.Popen", "os.system"}:
            noted["a program that is started and waited for"] = None

    return hook


@contextmanager
def silenced() -> Iterator[None]:
    """With stdout closed: what exo's own code prints is not the plugin's."""
    sys.stdout.flush()
    kept, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(null)
