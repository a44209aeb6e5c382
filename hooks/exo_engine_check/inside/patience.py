"""Waiting for what may never come, no longer than it has to be."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

STEP = 0.05  # seconds
QUIET = 24  # steps: what has not come after so many in which nobody works does not come
ALONE = 8  # the same where no other task is there that may wake up
WORK = 0.001  # seconds of this process in a step; less is a timer that looks around


def clock() -> float:
    """Seconds, without those for which this thread has waited for a processor (Linux)."""
    try:
        with open("/proc/thread-self/schedstat", encoding="ascii") as file:
            queued = int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        queued = 0.0
    return time.perf_counter() - queued


async def comes(
    work: Awaitable[Any], seconds: float, progress: Callable[[], Any] = lambda: None
) -> bool:
    """Whether work is done in a time; given up early where this process has nothing to do.

    On a busy machine steps take longer than they should: those count for nothing.
    """
    task, quiet, end = asyncio.ensure_future(work), 0, time.monotonic() + seconds
    try:
        while time.monotonic() < end and quiet < (QUIET if _others(task) else ALONE):
            start, used, before = time.monotonic(), time.process_time(), progress()
            if (await asyncio.wait({task}, timeout=STEP))[0]:
                return True
            is_late = time.monotonic() - start > 2 * STEP
            works = time.process_time() - used > WORK or progress() != before
            quiet = 0 if is_late or works else quiet + 1
        return False
    finally:
        task.cancel()


def _others(task: "asyncio.Future[Any]") -> set[Any]:
    """The tasks of this loop but one, and the one that waits for it."""
    return asyncio.all_tasks() - {task, asyncio.current_task()}


async def settle(seconds: float, done: Callable[[], bool]) -> bool:
    """Wait until something is so, or for a while."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.02)
    return True
