"""The plugin's log lines: with times, and a fault that repeats is said once a minute."""

import logging
import time

from ..names import PACKAGE

REPEAT_SECONDS = 60.0
_MOST_KEPT = 1000


class Repeats(logging.Filter):
    """Lets a line pass once a minute; the next one says how often it came in between."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is shown. What differs from line to line is in its arguments."""
        key, now = (record.name, str(record.msg)), time.monotonic()
        last, count = self._seen.get(key, (-REPEAT_SECONDS, 0))
        if record.levelno < logging.WARNING or len(self._seen) > _MOST_KEPT:
            return True
        if now - last < REPEAT_SECONDS:
            self._seen[key] = last, count + 1
            return False
        self._seen[key] = now, 0
        if count:
            record.msg = f"{record.getMessage()} (and {count} times more in the last minute)"
            record.args = ()
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
