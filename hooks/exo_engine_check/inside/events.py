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

MAX_TEXT = 600


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

    def write(self, **event: object) -> None:
        """Send one event."""
        if os.getpid() != self._process:
            os._exit(0)  # a copy of this process that the plugin has forked
        line = self._seal(json.dumps(event).encode())
        while line:
            line = line[os.write(self.request["events"], line) :]

    def fault(self, check: str, text: str, error: BaseException | None = None) -> None:
        """Send a fault, with the place that its error leads to."""
        path, line = self._place(error)
        self.write(check=check, message=text[:MAX_TEXT], path=path, line=line)

    def _place(self, error: BaseException | None) -> tuple[str, int]:
        """The last line of the plugin's own files that an error went through."""
        for _ in range(20):
            if error is None:
                break
            frames = traceback.extract_tb(error.__traceback__)
            places = [(frame.filename, frame.lineno or 0) for frame in frames]
            if isinstance(error, SyntaxError) and error.filename:
                places.append((error.filename, error.lineno or 0))
            own = [place for place in places if os.path.realpath(place[0]).startswith(self.root)]
            if own:
                return own[-1]
            error = error.__cause__ or error.__context__
        return "", 0

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
