"""The plugin's settings, environment variables that begin with its engine's name."""

import os

from ..names import ENGINE_NAME

PREFIX = f"EXO_{ENGINE_NAME.upper()}_"

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class SettingError(ValueError):
    """An environment variable holds what it can't."""


def seconds(name: str, default: float) -> float:
    """The seconds that EXO_<ENGINE>_<name> says, above 0. Raises SettingError."""
    text = os.environ.get(PREFIX + name)
    try:
        value = default if not text else float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise SettingError(f"{PREFIX}{name} is {text!r}; set it to a number of seconds above 0")
    return value


def size(name: str) -> int | None:
    """The bytes that EXO_<ENGINE>_<name> says, such as 0 or 2G, if any. Raises SettingError."""
    text = os.environ.get(PREFIX + name)
    if not text:
        return None
    number = text.rstrip("KMG") if text[-1:] in _UNITS else text
    if not (number.isascii() and number.isdigit() and len(text) - len(number) < 2):
        raise SettingError(
            f"{PREFIX}{name} is {text!r}; set it to a number of bytes, such as 2G, or to 0"
        )
    return int(number[:18]) * _UNITS.get(text[-1], 1)


def whole(name: str) -> int | None:
    """The whole number above 0 that EXO_<ENGINE>_<name> says, if any. Raises SettingError."""
    text = os.environ.get(PREFIX + name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text[:9]) > 0 and len(text) < 10):
        raise SettingError(f"{PREFIX}{name} is {text!r}; set it to a whole number from 1 on")
    return int(text)
