"""Audit hooks: a crowd of forks is refused, blocking calls are noted, bad machines are played."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

MAX_FORKS = 6  # each copy may fork as often: the parent counts what comes of it too late

Hook = Callable[[str, tuple[Any, ...]], None]
PROGRAMS = ("subprocess.Popen", "os.posix_spawn", "os.system", "os.exec", "os.spawn", "pty.spawn")
_exempt: list[bool] = []  # forks of the check's own
_hooks: list[Hook] = []  # an audit hook can't be taken away again: one stays, and calls these


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Let a module's or a class's attribute have another value in the block."""
    own = {key: value for key, value in vars(owner).items() if key == name}
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, own[name])
        else:
            delattr(owner, name)


@contextmanager
def auditing(hook: Hook) -> Iterator[None]:
    """Let a function see every audit event; what it raises, the audited call raises."""
    _hooks.append(hook)
    try:
        yield
    finally:
        _hooks.remove(hook)


def install() -> None:
    """Call the hooks from now on, and refuse forks beyond a number that no plugin needs."""
    forks: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in {"os.fork", "os.forkpty"} and not _exempt:
            forks.append(event)
            if len(forks) > MAX_FORKS:
                raise RuntimeError(f"the plugin forks more than {MAX_FORKS} times")
        for other in list(_hooks):
            other(event, arguments)

    sys.addaudithook(hook)


@contextmanager
def own_forks() -> Iterator[None]:
    """Count no fork in the block: it is the check's."""
    _exempt.append(True)
    try:
        yield
    finally:
        _exempt.pop()


@contextmanager
def blocking(waits: dict[str, None]) -> Iterator[None]:
    """Note what waits in a plain call on this thread: the event loop's."""
    loop_thread, sleep = threading.get_ident(), time.sleep

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if threading.get_ident() != loop_thread:
            return
        if event == "socket.connect" and arguments[0].gettimeout() != 0:
            waits["a blocking connect()"] = None
        elif event in PROGRAMS:
            waits["a program that is started and waited for"] = None

    def noted_sleep(seconds: float) -> None:  # Python has no audit event for it
        if threading.get_ident() == loop_thread and seconds > 0.02:
            waits[f"time.sleep({seconds:g})"] = None
        sleep(seconds)

    with replaced(time, "sleep", noted_sleep), auditing(hook):
        yield
