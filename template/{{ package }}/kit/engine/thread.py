"""One thread for a device, and threads for what would hold up the loop.

Daemon threads: those of an executor are joined at the interpreter's end, so a Ctrl-C would wait for
the device.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from ..contract import DeviceError

T = TypeVar("T")


@dataclass(eq=False)
class Job(Generic[T]):
    """A call on its way through a thread.

    seconds: how long it may run, without a bound where it is None. result: what it gave, or a
    DeviceError where it, or the job before it, runs for longer. returned: it has come back,
    however late, or will never run.
    """

    call: Callable[[], T]
    seconds: float | None
    result: "asyncio.Future[T]"
    returned: "asyncio.Future[None]"
    started: float | None = None  # seconds of time.monotonic()

    def __await__(self) -> Generator[Any, None, T]:
        return self.result.__await__()

    def remaining(self) -> float:
        """The seconds that are left to it; below 0 where it is overdue."""
        if self.started is None or self.seconds is None:
            return 1.0
        return self.seconds - (time.monotonic() - self.started)


class WatchedThread:
    """Runs jobs one after the other, in order, on a thread of its own.

    overdue: what is said of a job that takes too long. hung: that job, until it comes back.
    """

    def __init__(self, name: str, overdue: str = "it takes too long") -> None:
        self._name, self._overdue = name, overdue
        self._queue: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._jobs: dict[Job[Any], None] = {}  # in order; the first runs, or is the next to run
        self._timer: asyncio.TimerHandle | None = None
        self.hung: Job[Any] | None = None

    def submit(self, call: Callable[[], T], seconds: float | None = None) -> Job[T]:
        """Queue a call. Where its result is cancelled before it starts, it never runs.

        While a job hangs, those with a bound end with a DeviceError; the others stay queued.
        """
        loop = asyncio.get_running_loop()
        job = Job(call, seconds, loop.create_future(), loop.create_future())
        if self.hung is not None and seconds is not None:
            job.result.set_exception(DeviceError(self._overdue))
            job.returned.set_result(None)
            return job
        if self._thread is None:
            self._thread = threading.Thread(
                target=_work, args=(self._queue, self._done), name=self._name, daemon=True
            )
            self._thread.start()
        self._jobs[job] = None
        self._queue.put(job)
        if seconds is not None and self._timer is None:
            self._timer = loop.call_later(seconds, self._watch)
        return job

    def _watch(self) -> None:
        """Whether the running job is overdue; look again while there is one to look at."""
        self._timer = None
        running = next(iter(self._jobs), None)
        if running is None or self.hung is not None:
            return
        if (remaining := running.remaining()) >= 0:
            loop = running.result.get_loop()
            self._timer = loop.call_later(max(remaining, 0.01), self._watch)
            return
        self.hung = running
        for job in self._jobs:
            if job.seconds is not None and not job.result.done():
                job.result.set_exception(DeviceError(self._overdue))

    def _done(self, job: Job[Any], result: Any, error: BaseException | None) -> None:
        """On the loop: hand out what a call gave."""
        self._jobs.pop(job, None)
        if job is self.hung:
            self.hung = None
        if not job.result.done():
            if error is None:
                job.result.set_result(result)
            else:
                job.result.set_exception(error)
        job.returned.set_result(None)

    def stop(self) -> None:
        """End the thread after what is queued; a later job starts another one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._thread is not None:
            self._queue.put(None)
            self._thread, self._queue = None, SimpleQueue()


async def in_thread(call: Callable[[], T]) -> T:
    """The result of one call on a thread of its own."""
    thread = WatchedThread("in_thread")
    try:
        return await thread.submit(call)
    finally:
        thread.stop()


def _work(
    queue: "SimpleQueue[Job[Any] | None]",
    done: Callable[[Job[Any], Any, BaseException | None], None],
) -> None:
    while (job := queue.get()) is not None:
        job.started = time.monotonic()
        skipped = job.result.done()  # cancelled, or ended by a job that hung
        result, error = (None, None) if skipped else _outcome(job.call)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            job.result.get_loop().call_soon_threadsafe(done, job, result, error)
        del job, result, error  # a waiting thread must not keep a model alive


def _outcome(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return call(), None
    except StopIteration as error:  # a future takes none
        return None, RuntimeError(f"StopIteration: {error}")
    except BaseException as error:
        return None, error
