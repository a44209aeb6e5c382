"""exo prints what it does; the reader of its output can go away, and the node has to go on."""

import os
import stat
import sys
from contextlib import suppress
from typing import Any


class Output:
    """Around stdout or stderr: once its reader is gone, what is written goes nowhere."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As a stream's own; that nobody reads it is no error."""
        try:
            return int(self._stream.write(text))
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        """As a stream's own; that nobody reads it is no error."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        """Into /dev/null from now on, with what waits in the buffer."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def outlive_the_reader() -> None:
    """A print of exo's to a closed pipe ends the step, or the shutdown, that it stands in."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        with suppress(OSError, AttributeError, ValueError):  # it is no file, or closed
            mode = os.fstat(stream.fileno()).st_mode
            if (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)) and not isinstance(stream, Output):
                setattr(sys, name, Output(stream))
