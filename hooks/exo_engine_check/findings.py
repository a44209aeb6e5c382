"""What a check finds, and the one form in which it says so."""

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

README = "https://github.com/org/exo-engine-template"
PASSED, FAILED, CRASHED, HUNG = "passed", "failed", "crashed", "hung"
NOT_RUN, CANNOT = "not run", "can't"


def printable(text: object) -> str:
    """One line without control characters: a plugin's words must not steer a terminal."""
    plain = "".join(c if c.isprintable() else " " for c in str(text))
    return " ".join(plain.split())[:1000]


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
        message = printable(self.message)
        return f"- `{self.place}`: {message}" if self.place.path else f"- {message}"


@dataclass
class Result:
    """What became of one check."""

    id: str
    state: str
    findings: list[Finding] = field(default_factory=list)
    why: str = ""  # it was not run, or the plugin can't
    good: int = 0
    of: int = 1  # of so many things that were tried


@dataclass
class Report:
    """What became of every check, in the order of the ids."""

    results: list[Result] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)  # ids, with the reasons given
    notes: list[str] = field(default_factory=list)
    host: str = ""  # which exo
    can: dict[str, str] = field(default_factory=dict)  # rows of CAPABILITIES.md, with their cells
    cannot: dict[str, str] = field(default_factory=dict)  # rows, with the reasons given
    nothing_ran: str = ""  # why: it ends with 2
    again: str = "exo-engine check"  # the command that made it

    def with_state(self, state: str) -> list[Result]:
        return [result for result in self.results if result.state == state]

    @property
    def faults(self) -> list[tuple[str, Finding]]:
        return [(r.id, finding) for r in self.results for finding in r.findings]


def reports(find: Callable[..., Iterable[Finding]]) -> Any:
    """Make a generator of findings what repo-review asks of `check`: a text, empty for none."""

    @functools.wraps(find)
    def check(*args: Any, **kwargs: Any) -> str:
        found = sorted(set(find(*args, **kwargs)))
        lines = [*map(str, found), "", inspect.cleandoc(find.__doc__ or "")]
        return "\n".join(lines) if found else ""

    return staticmethod(check)


class Check:
    """What all checks share; a module is a family."""

    family: ClassVar[str] = ""
    check: ClassVar[Any]
    url: ClassVar[str] = README + "#{name}"  # repo-review fills in the id

    def __init_subclass__(cls) -> None:
        cls.family = "exo-" + cls.__module__.rpartition(".")[2].replace("_", "-")


def title(check: type[Check]) -> str:
    return (check.__doc__ or "").strip()


def manual(check: type[Check]) -> str:
    return inspect.cleandoc(check.check.__doc__ or "")
