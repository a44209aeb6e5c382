"""How the command ends: the first Ctrl-C is the last."""

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

INTERRUPTED = 130  # as shells count it: 128 and SIGINT
CLOSE_SECONDS = 0.3  # what a device gets to close after a Ctrl-C
_LEAVE_SECONDS = 0.4  # when the process ends, whatever holds it up

_undone: list[Callable[[], object]] = []


@contextmanager
def undone(call: Callable[[], object]) -> Iterator[None]:
    """Call it at the end of the block, or before the process is left in the middle of it."""
    _undone.append(call)
    try:
        yield
    finally:
        _undone.remove(call)
        call()


def leave(code: int) -> None:
    """End the process now: at an ordinary end, Python waits for threads that are at work."""
    for call in reversed(_undone):
        with suppress(Exception):
            call()
    os._exit(code)


async def watched(work: Awaitable[int]) -> int:
    """The exit code of a command. Ctrl-C cancels it; what doesn't end at that is left behind.

    asyncio's own handler only cancels, so that a loop held up by a backend would go on.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    timers: list[threading.Timer] = []

    def interrupted(*_: object) -> None:
        if timers:
            leave(INTERRUPTED)
        timers.append(threading.Timer(_LEAVE_SECONDS, leave, (INTERRUPTED,)))
        timers[0].daemon = True
        timers[0].start()
        if task is not None:
            loop.call_soon_threadsafe(task.cancel)

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        return await work
    finally:
        if timers:
            leave(INTERRUPTED)
        signal.signal(signal.SIGINT, before)
