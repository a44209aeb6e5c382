"""The plugin's log lines: with times, and a fault that repeats is said once a minute."""

import logging
import re
import time

from ..names import PACKAGE

REPEAT_SECONDS = 60.0
_MOST_KEPT = 1000
_MOST_OF_A_KEY = 200


class Repeats(logging.Filter):
    """Lets a line pass once a minute; the next one says how often it came in between."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is shown. Lines that differ in their numbers alone are the same."""
        if record.levelno < logging.WARNING:
            return True
        text, now = record.getMessage(), time.monotonic()
        key = (record.name, re.sub(r"\d+", "", text)[:_MOST_OF_A_KEY])
        last, count = self._seen.get(key, (-REPEAT_SECONDS, 0))
        if now - last < REPEAT_SECONDS:
            self._seen[key] = last, count + 1
            return False
        if len(self._seen) >= _MOST_KEPT:
            self._seen.clear()
        self._seen[key] = now, 0
        if count:
            record.msg, record.args = f"{text} (and {count} times more since)", ()
        return True


def speak() -> None:
    """Show the plugin's lines where the host has no logging of its own, as exo hasn't."""
    logger = logging.getLogger(PACKAGE)
    if logger.handlers or logging.getLogger().handlers:
        return
    handler = logging.StreamHandler()
    handler.addFilter(Repeats())
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    handler.setFormatter(logging.Formatter(form, "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def one_line(error: BaseException) -> str:
    """What an error says, on one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or repr(error)
