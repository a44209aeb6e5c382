"""What is being done, for who waits at a terminal."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

_QUIET_SECONDS = 1.0  # what is shorter needs no word
_EVERY_SECONDS = 0.5


class Progress:
    """A line on stderr about what takes longer than a second; nothing where that is no terminal."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self._live: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._text = ""
        self._more: Callable[[], str] | None = None

    def say(self, text: str, more: Callable[[], str] | None = None) -> None:
        """Say what is being done now; more: how far it is, asked now and then."""
        self._text, self._more = text, more
        if self.terminal and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_QUIET_SECONDS, self._tick)

    def _tick(self) -> None:
        if self._live is None:
            self._live = _line()
            self._live.add_task("")
            self._live.start()
        more = f" ({self._more()})" if self._more else ""
        self._live.update(self._live.task_ids[0], description=self._text + more)
        self._timer = asyncio.get_running_loop().call_later(_EVERY_SECONDS, self._tick)

    def stop(self) -> None:
        """Take the line away."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def end(self, text: str) -> None:
        """Take the line away, and leave a dim one."""
        self.stop()
        if self.terminal:
            from rich.console import Console

            Console(stderr=True).print(text, style="dim", markup=False, highlight=False)


def _line() -> Any:
    from rich.console import Console
    from rich.progress import Progress as Live
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    return Live(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
