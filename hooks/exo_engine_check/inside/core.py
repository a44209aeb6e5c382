"""What fixtures and checks of the child share: steps, and the two ways in which they end."""

import contextlib
import json
import os
import traceback
from collections.abc import Iterator
from typing import Any, ClassVar

MAX_TEXT = 600


class NotRunError(Exception):
    """A check can't be made; the text says why."""


class BrokenError(Exception):
    """Something of the plugin's fails that has to work; the text says what."""


class Fault(str):
    """A sentence, with the error that it is about."""

    error: BaseException | None = None

    @classmethod
    def of(cls, text: str, error: BaseException | None) -> "Fault":
        fault = cls(text)
        fault.error = error
        return fault


class Check:
    """A check that runs the plugin: its fixtures come by parameter name."""

    family: ClassVar[str] = ""
    check: ClassVar[Any]
    faultless: ClassVar[bool] = False  # on an exo whose faults somebody has mended


class Report:
    """Writes events to the parent, one line of JSON each; knows the step under way."""

    def __init__(self, pipe: int, request: dict[str, Any]) -> None:
        self.pipe, self.request, self.process = pipe, request, os.getpid()
        self.crowds: list[str] = []
        self.roots = [os.path.realpath(folder) + os.sep for folder in request["roots"]]

    def write(self, **event: object) -> None:
        if os.getpid() != self.process:
            os._exit(0)  # a copy of this process that the plugin has forked
        os.write(self.pipe, json.dumps(event).encode() + b"\n")

    def fault(self, check: str, text: str, error: BaseException | None = None) -> None:
        path, line = self._where(error)
        self.write(check=check, message=text[:MAX_TEXT], path=path, line=line)

    def _where(self, error: BaseException | None) -> tuple[str, int]:
        """The last line of the plugin's own files that an error went through."""
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            found = ("", 0)
            for frame in traceback.extract_tb(error.__traceback__):
                if self.owns(frame.filename):
                    found = (frame.filename, frame.lineno or 0)
            if isinstance(error, SyntaxError) and error.filename and self.owns(error.filename):
                found = (error.filename, error.lineno or 0)
            if found[0]:
                return found
            error = error.__cause__ or error.__context__
        return "", 0

    def owns(self, file: str) -> bool:
        return os.path.realpath(file).startswith(tuple(self.roots))

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Something of the plugin's is called; its failure is told as one sentence.

        A step at which an earlier process crashed or hung is not taken again.
        """
        if ended := self.request["avoid"].get(what):
            raise NotRunError(f"{what} {ended}")
        self.write(step=what)
        try:
            yield
        except (NotRunError, BrokenError):
            raise
        except SystemExit as error:
            text = f"{what} ends the process with sys.exit({error.code!r})"
            raise BrokenError(text) from error
        except BaseException as error:
            raise BrokenError(f"{what} fails: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """An error's kind and its first line."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:
        lines = []
    return f"{type(error).__name__}: {lines[0]}"[:MAX_TEXT] if lines else type(error).__name__


def shorten(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) < 80 else text[:77] + "..."
