"""Looks whether an event loop beats, and at which line of the plugin's it stands still."""

import asyncio
import os
import sys
import threading
import time

from .patience import clock

BEAT = 0.01  # seconds
STILL = 0.5  # seconds without a beat, but those in which the loop waited for a processor


class Heartbeat:
    """Around work on the running loop, whose thread it is made on.

    root: the project's folder, with a separator. waits: where standing still is noted.
    """

    def __init__(self, root: str, waits: dict[str, None]) -> None:
        self.root, self.waits = root, waits
        self.loop_thread, self.last = threading.get_ident(), time.monotonic()
        self.place, self.ended, self.before = "", threading.Event(), clock()

    def __enter__(self) -> None:
        self.task = asyncio.ensure_future(self._beat())
        threading.Thread(target=self._watch, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._note()  # from Python 3.12 on, wait_for() starts no task: there may have been no beat
        self.ended.set()
        self.task.cancel()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            self._note()

    def _note(self) -> None:
        """The loop beats: note where it has stood still, if it has."""
        if (gap := clock() - self.before) > STILL:
            self.waits[f"{self.place or 'something'}, for {gap:.1f} s"] = None
        self.last, self.place, self.before = time.monotonic(), "", clock()

    def _watch(self) -> None:
        """Note where the loop stands when it has not beaten for half of the time."""
        while not self.ended.wait(STILL / 10):
            if time.monotonic() - self.last > STILL / 2 and not self.place:
                self.place = self._line()

    def _line(self) -> str:
        """The deepest line of the plugin's own on the loop's thread."""
        frame = sys._current_frames().get(self.loop_thread)
        while frame is not None:
            file = os.path.realpath(frame.f_code.co_filename)
            if file.startswith(self.root):
                return f"{file.removeprefix(self.root)}:{frame.f_lineno}"
            frame = frame.f_back
        return ""
