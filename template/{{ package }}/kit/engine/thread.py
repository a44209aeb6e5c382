"""One thread for a device, and threads for what would hold up the loop.

Daemon threads: those of an executor are joined at the interpreter's end, so a Ctrl-C would wait for
the device.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class HungError(RuntimeError):
    """A call takes longer than it may."""


@dataclass(eq=False)
class _Job:
    call: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    seconds: float | None  # that it may take
    begun: float | None = None

    def overdue(self) -> bool:
        """Whether it runs for longer than it may."""
        if self.begun is None or self.seconds is None:
            return False
        return time.monotonic() - self.begun > self.seconds

    def rest(self) -> float:
        """After how many seconds to look at it again."""
        if self.begun is None or self.seconds is None:
            return 1.0
        return max(self.seconds - (time.monotonic() - self.begun), 0.01)


class WatchedThread:
    """Runs calls one after the other, in order, on a thread of its own.

    hung: told True when a call is overdue, and False when it came back after all.
    """

    def __init__(self, name: str, hung: Callable[[bool], None] = lambda _: None) -> None:
        self._name = name
        self._tell = hung
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._jobs: dict[_Job, None] = {}  # in order; the first one is running, or the next to run
        self._timer: asyncio.TimerHandle | None = None
        self.stuck = False

    def submit(self, call: Callable[[], T], seconds: float | None = None) -> "asyncio.Future[T]":
        """Queue a call; its result comes to the running loop. A cancelled one may never run.

        Where the call, or one before it, runs for longer than its seconds, those that are bounded
        end with a HungError; the others stay queued.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if self.stuck and seconds is not None:
            future.set_exception(HungError())
            return future
        if self._thread is None:
            self._thread = threading.Thread(
                target=_work, args=(self._queue, self._done), name=self._name, daemon=True
            )
            self._thread.start()
        job = _Job(call, loop, future, seconds)
        self._jobs[job] = None
        self._queue.put(job)
        if seconds is not None and self._timer is None:
            self._timer = loop.call_later(seconds, self._look)
        return future

    def _look(self) -> None:
        """Whether the running call is overdue; look again while there is one to look at."""
        self._timer = None
        running = next(iter(self._jobs), None)
        if running is None or self.stuck:
            return
        if not running.overdue():
            self._timer = running.loop.call_later(running.rest(), self._look)
            return
        self.stuck = True
        for job in self._jobs:
            if job.seconds is not None and not job.future.done():
                job.future.set_exception(HungError())
        self._tell(True)

    def _done(self, job: _Job, result: Any, error: BaseException | None) -> None:
        """On the loop: hand out what a call gave."""
        running = next(iter(self._jobs), None)
        self._jobs.pop(job, None)
        if not job.future.done():
            if error is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(error)
        if self.stuck and job is running:
            self.stuck = False
            self._tell(False)

    def stop(self) -> None:
        """End the thread after what is queued; a later call starts another one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._thread is not None:
            self._queue.put(None)
            self._thread, self._queue = None, SimpleQueue()


async def in_thread(call: Callable[[], T]) -> T:
    """The result of one call on a thread of its own."""
    worker = WatchedThread("in_thread")
    try:
        return await worker.submit(call)
    finally:
        worker.stop()


def _work(
    queue: "SimpleQueue[_Job | None]", done: Callable[[_Job, Any, BaseException | None], None]
) -> None:
    while (job := queue.get()) is not None:
        job.begun = time.monotonic()
        skipped = job.future.done()  # cancelled, or ended by a call that hung
        result, error = (None, None) if skipped else _outcome(job.call)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            job.loop.call_soon_threadsafe(done, job, result, error)
        del job, result, error  # a waiting thread must not keep a model alive


def _outcome(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return call(), None
    except StopIteration as error:  # a future takes none
        return None, RuntimeError(f"StopIteration: {error}")
    except BaseException as error:
        return None, error
