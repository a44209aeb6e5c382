"""How the command ends: the first Ctrl-C is the last, unless it is to end something smaller."""

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from socket import socketpair
from typing import cast

INTERRUPTED = 130  # as shells count it: 128 and SIGINT
_LEAVE_SECONDS = 0.3  # what a device gets to close; then the process ends, whatever holds it up

_exit_calls: list[Callable[[], object]] = []
_exiting = threading.RLock()  # no thread ends the process while another is in such a call
_instead: list[Callable[[], object]] = []


@contextmanager
def on_exit(call: Callable[[], object]) -> Iterator[None]:
    """Call it at the end of the block, or before the process is left in the middle of it."""
    _exit_calls.append(call)
    try:
        yield
    finally:
        with _exiting:
            _exit_calls.remove(call)
            call()


@contextmanager
def instead(call: Callable[[], object]) -> Iterator[None]:
    """Within the block, the first Ctrl-C calls this on the loop; the second ends the command."""
    _instead.append(call)
    try:
        yield
    finally:
        if call in _instead:
            _instead.remove(call)


def leave(code: int) -> None:
    """End the process now: at an ordinary end, Python waits for threads that are at work."""
    with _exiting:
        for call in reversed(_exit_calls):
            with suppress(Exception):
                call()
        os._exit(code)


async def watched(work: Awaitable[int]) -> int:
    """The exit code of a command. Ctrl-C cancels it; what doesn't end at that is left behind.

    A thread of its own hears of the signal: the main thread may be held up by a backend, or may
    be about to wait for events that never come.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    ours, theirs = socketpair()
    theirs.setblocking(False)
    interrupted = threading.Event()

    def listen() -> None:
        while signals := ours.recv(1):
            if signals[0] != signal.SIGINT:
                continue
            if _instead:
                loop.call_soon_threadsafe(_instead.pop())
                continue
            interrupted.set()
            with suppress(RuntimeError):  # at its very end, the loop is closed
                loop.call_soon_threadsafe(cast("asyncio.Task[int]", task).cancel)
            ours.settimeout(_LEAVE_SECONDS)
            with suppress(TimeoutError):
                ours.recv(1)  # a second one
            leave(INTERRUPTED)
        ours.close()

    threading.Thread(target=listen, daemon=True).start()
    fd = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return await work
    finally:
        if interrupted.is_set():
            leave(INTERRUPTED)
        signal.signal(signal.SIGINT, before)
        signal.set_wakeup_fd(fd)
        theirs.close()
