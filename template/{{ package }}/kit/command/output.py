"""What the command prints: errors as sentences, and text that does nothing to a terminal."""

import re
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from traceback import extract_tb

from ...names import PACKAGE, PROJECT

_ROOT = Path(__file__).parents[2]
_CONTROLS = dict.fromkeys([*range(32), *range(127, 160)])
del _CONTROLS[ord("\n")], _CONTROLS[ord("\t")]


class CommandError(RuntimeError):
    """A sentence for the user: what is wrong and what to do."""


class ReaderGone(Exception):
    """Nobody reads our stdout any more."""


def printable(text: str) -> str:
    """Text without control characters but newline and tab: a terminal obeys the others."""
    return text.translate(_CONTROLS)


def show(text: str) -> None:
    """Text to stdout at once; what the terminal can't spell is replaced."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(printable(text).encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise ReaderGone from error


def sentence(error: BaseException) -> str:
    """An error on one line; with its kind and place where nobody meant it to be read."""
    text = " ".join(printable(str(error)).split())
    cause = error.__cause__
    if cause is not None and text.endswith(own := _line(cause)):  # the engine's "could not load"
        return text.removesuffix(own) + sentence(cause)
    root = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if root and root != PACKAGE:
        return f"the Python package {root!r} is not installed; {_install(root)}"
    if text and isinstance(error, OSError | RuntimeError | ValueError):
        return text
    line = f"{type(error).__name__}: {text}".rstrip(": ")
    return f"{line}{_place(error)}"


def _line(error: BaseException) -> str:
    return " ".join(printable(str(error) or repr(error)).split())


def _place(error: BaseException) -> str:
    """Where in this package an error is."""
    frames = [(Path(frame.filename), frame.lineno) for frame in extract_tb(error.__traceback__)]
    own = [(path, line) for path, line in frames if path.is_relative_to(_ROOT)]
    if not own:
        return ""
    path, line = own[-1]
    return f" ({path.relative_to(_ROOT.parent).as_posix()}:{line})"


def _install(module: str) -> str:
    """How to install what has this module: as this plugin's metadata asks for it, if it does."""
    try:
        requirements = requires(PROJECT) or []
    except PackageNotFoundError:
        requirements = []
    for line in requirements:
        requirement, _, marker = line.partition(";")
        name = re.split(r"[^\w.-]", requirement.strip())[0]
        if re.sub(r"[-.]", "_", name).lower() == module.lower():
            extra = re.search(r"extra == .([\w-]+)", marker)
            what = f"{PROJECT}[{extra[1]}]" if extra else requirement.strip()
            return f"pip install '{what}'"
    return f"pip install {module}, or do as its maker says"
