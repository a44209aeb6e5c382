"""What a check finds, and the one form in which it says so."""

import functools
import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

README = "https://github.com/org/exo-engine-template"
_LINE = re.compile(r"^- (?:`(?P<path>[^`]+?)(?::(?P<line>\d+))?`: )?(?P<message>.+)$")


@dataclass(frozen=True, order=True)
class Place:
    """A file of the project, with / between folders, and a line where one is known."""

    path: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.line}" if self.line else self.path


@dataclass(frozen=True, order=True)
class Finding:
    """One fault: a sentence, and where."""

    place: Place
    message: str

    def __str__(self) -> str:
        """The form that `parse` reads: - `path:line`: message."""
        message = " ".join(self.message.split())
        return f"- `{self.place}`: {message}" if self.place.path else f"- {message}"


def parse(text: str) -> tuple[list[Finding], str]:
    """The findings of a check's text, and the manual that follows them."""
    lines, _, manual = text.partition("\n\n")
    matches = [match for line in lines.splitlines() if (match := _LINE.match(line))]
    return [
        Finding(Place(m["path"] or "", int(m["line"] or 0)), m["message"]) for m in matches
    ], manual.strip()


def reports(find: Callable[..., Iterable[Finding]]) -> Any:
    """Make a generator of findings what repo-review asks of `check`: a text, empty for none.

    The text is one line a finding, then the docstring of `check`; None, a check that is skipped,
    is the answer where nothing was loaded.
    """

    @functools.wraps(find)
    def check(*args: Any, **kwargs: Any) -> str | None:
        if kwargs.get("exo_import", find) is None:
            return None
        found = sorted(set(find(*args, **kwargs)))
        if not found:
            return ""
        return "\n".join([*map(str, found), "", textwrap.dedent(find.__doc__ or "").strip()])

    return staticmethod(check)


class Check:
    """What all checks share; `family` is set by a family's own base."""

    family: ClassVar[str] = ""
    check: ClassVar[Any]
    url: ClassVar[str] = README + "#{name}"  # repo-review fills in the id


def collect(namespace: dict[str, Any]) -> dict[str, Check]:
    """The checks of a module: its classes that are named by an id."""
    return {
        name: value()
        for name, value in namespace.items()
        if isinstance(value, type) and issubclass(value, Check) and re.fullmatch(r"EX\d{3}", name)
    }
