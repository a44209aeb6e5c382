"""What the plugin's process says to the checker: events, one sealed line of JSON each."""

import contextlib
import hashlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from .check import BrokenError, CannotError, NotRunError, NotThereError

MAX_TEXT, MAX_TRACE = 600, 10_000  # characters


def sealer(key: str) -> Callable[[bytes], bytes]:
    """Make lines that only who has the key can make: each seal covers all lines before it."""
    state = hashlib.blake2b(key=bytes.fromhex(key), digest_size=8)

    def seal(content: bytes) -> bytes:
        state.update(content)
        return f"{state.hexdigest()} ".encode() + content + b"\n"

    return seal


class Events:
    """Writes events; it knows the project, and which steps are not to be taken again."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request, self._process = request, os.getpid()
        self._seal = sealer(request.pop("key"))
        self.root = os.path.realpath(request["project"]) + os.sep

    def take_turn(self) -> None:
        """Wait until no other process of the check has the device, which may be one's alone.

        The request has then what is known by that time: `avoid` and `required`.
        """
        if (turn := self.request.pop("turn", None)) is not None:
            with os.fdopen(turn, "rb") as pipe, os.fdopen(self.request["more"], "rb") as more:
                pipe.read(1)
                self.request |= json.load(more)

    def write(self, **event: object) -> None:
        """Send one event."""
        if os.getpid() != self._process:
            os._exit(0)  # a copy of this process that the plugin has forked
        line = self._seal(json.dumps(event).encode())
        while line:
            line = line[os.write(self.request["events"], line) :]

    def fault(self, check: str, text: str, error: BaseException | None = None) -> None:
        """Send a fault, with the place that its error leads to."""
        errors = list(_chain(error))
        path, line = self._place(errors)
        cause = describe(errors[-1]) if errors else ""
        trace = "".join(traceback.format_exception(error)) if error else ""
        self.write(
            **{"check": check, "message": text[:MAX_TEXT], "path": path, "line": line},
            **{"cause": cause, "trace": trace[-MAX_TRACE:]},
        )

    def _place(self, errors: list[BaseException]) -> tuple[str, int]:
        """The last line of the author's files that errors went through, else of the kit's."""
        own, kit = list[tuple[str, int]](), list[tuple[str, int]]()
        for error in errors:
            frames = traceback.extract_tb(error.__traceback__)
            places = [(frame.filename, frame.lineno or 0) for frame in frames]
            if isinstance(error, SyntaxError) and error.filename:
                places.append((error.filename, error.lineno or 0))
            for place in places:
                if (real := os.path.realpath(place[0])).startswith(self.root):
                    (kit if f"{os.sep}kit{os.sep}" in real else own).append(place)
        return [("", 0), *kit, *own][-1]

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Something of the plugin's is called; its failure becomes one sentence.

        A step at which an earlier process crashed or hung is not taken again.
        """
        if ended := self.request["avoid"].get(what):
            raise NotRunError(f"{what} {ended}")
        self.write(step=what)
        try:
            yield
        except (NotRunError, NotThereError, CannotError, BrokenError):
            raise
        except SystemExit as error:
            raise BrokenError(f"{what} ends the process with sys.exit({error.code!r})") from error
        except BaseException as error:
            raise BrokenError(f"{what} fails: {describe(error)}") from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, what caused that."""
    for _ in range(20):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """With stdout closed: what exo's own code prints is not the plugin's."""
    sys.stdout.flush()
    stdout, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(null)


def describe(error: BaseException) -> str:
    """An error's kind and its first line."""
    try:
        first = f": {str(error).strip().splitlines()[0]}"
    except Exception:  # it has no text, or can't say it
        first = ""
    return f"{type(error).__name__}{first}"[:MAX_TEXT]


def shorten(value: object) -> str:
    """A value's repr, at most 80 characters."""
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) < 80 else text[:77] + "..."


def once(make: Callable[[Any], Any]) -> Any:
    """A property that is made once for each owner; a failure is remembered, too."""

    def get(owner: Any) -> Any:
        if make not in owner.made:
            try:
                owner.made[make] = make(owner), None
            except (NotRunError, NotThereError, BrokenError) as error:
                owner.made[make] = None, error
        value, failed = owner.made[make]
        if failed is not None:
            raise failed
        return value

    return property(get)
