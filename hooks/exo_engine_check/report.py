"""What a run reports: a result for each check, and the faults in it."""

from dataclasses import dataclass, field

from .inside.check import Check

PASSED, FAILED, CRASHED, HUNG = "passed", "failed", "crashed", "hung"
NOT_RUN, CANNOT, NOT_THERE, LEFT = "not run", "can't", "not there", "left as exo has it"


# What can't be read is not installed; what is not installed is not found; and so on.
_BUILD = ("EX001", "EX002", "EX1", "EX201", "EX202", "EX205", "EX210")
_ORDER = (*_BUILD, "EX7", "EX3", "EX4", "EX6", "EX8", "EX9")


def printable(text: object) -> str:
    """One line that steers no terminal, and is no command of a GitHub workflow."""
    plain = "".join(c if c.isprintable() else " " for c in str(text))
    line = " ".join(plain.split()).replace("##[", "## [")[:1000]
    return f": {line[1:]}" if line.startswith("::") else line


@dataclass(frozen=True, order=True)
class Place:
    """A file of the project, with / between folders, and a line where one is known."""

    path: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.line}" if self.line else self.path


@dataclass(frozen=True, order=True)
class Fault:
    """One fault: where, and a sentence; of an error also what caused it, and its traceback."""

    place: Place
    message: str
    cause: str = field(default="", compare=False)
    trace: str = field(default="", compare=False)

    def __str__(self) -> str:
        message = printable(self.message)
        return f"{printable(self.place)}: {message}" if self.place.path else message


@dataclass
class Result:
    """What became of one check."""

    check: type[Check]
    state: str
    faults: list[Fault] = field(default_factory=list)
    why: str = ""  # it was not run, or the plugin can't
    good: int = 0
    of: int = 1  # of so many things that were tried
    alone: str = ""  # the options with which it is found alone, where its id is not enough

    @property
    def id(self) -> str:
        return self.check.__name__

    @property
    def order(self) -> tuple[int, str]:
        """Its place in a report: what stops a user first comes first."""
        places = (n for n, start in enumerate(_ORDER) if self.id.startswith(start))
        return next(places, len(_ORDER)), self.id


@dataclass
class Report:
    """What became of every check, in the order of the ids."""

    results: list[Result] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)  # ids, with the reasons given
    notes: list[str] = field(default_factory=list)
    hosts: dict[str, str] = field(default_factory=dict)  # which exo each version's checks ran on
    can: dict[str, dict[str, str]] = field(
        default_factory=dict
    )  # row of CAPABILITIES.md: host: cell
    cannot: dict[str, str] = field(default_factory=dict)  # rows, with the reasons given
    lost: list[Fault] = field(default_factory=list)  # rows of the table that say more than the run
    nothing_ran: str = ""  # why: it ends with 2
    again: str = "exo-engine check"  # the command that made it
    traceback: bool = False  # whether faults are shown with theirs

    def with_state(self, state: str) -> list[Result]:
        return [result for result in self.results if result.state == state]

    @property
    def faults(self) -> list[tuple[Result, Fault]]:
        """The faults that count, each with its result: all but exo's own that are left."""
        counted = [result for result in self.results if result.state != LEFT]
        return [(result, fault) for result in counted for fault in result.faults]
