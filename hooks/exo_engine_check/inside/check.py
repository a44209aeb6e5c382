"""What a check is, and how it ends. Both processes use this: the standard library alone."""

import inspect
from dataclasses import dataclass
from typing import Any, ClassVar


class NotRunError(Exception):
    """A check can't be made; the text says why."""


class NotThereError(Exception):
    """The host doesn't find the plugin at all, which is no fault; the text says why."""


class CannotError(Exception):
    """The plugin can't do what a check is about, which is no fault; the text says why."""


class BrokenError(Exception):
    """Something of the plugin's fails that has to work; the text says what."""


@dataclass(frozen=True)
class Share:
    """How much of what a check tried went well, where less than all is no fault."""

    good: int
    of: int


class Check:
    """A check is a class: its docstring is the title, that of `check` the manual.

    `check` gets what its parameters name and gives faults, none where all is well. One that reads
    gets `plugin`, or that and `report`, and gives report.Fault; one that runs the plugin gets
    properties of fixtures.Fixtures, and gives texts, each alone or with the error that it is
    about, or a Share.

    row: the line of CAPABILITIES.md that it proves.
    host: the exo that it runs on, "0.0" or "0.3".
    host_fault: whether the fault is exo's own, which a plugin may leave as it is.
    """

    row: ClassVar[str] = ""
    host: ClassVar[str] = "0.0"
    host_fault: ClassVar[bool] = False
    check: ClassVar[Any]

    def __init_subclass__(cls, row: str = "", host: str = "0.0", host_fault: bool = False) -> None:
        cls.row, cls.host, cls.host_fault = row, host, host_fault

    @classmethod
    def title(cls) -> str:
        """One line: what is so where the check passes."""
        return inspect.cleandoc(cls.__doc__ or "")

    @classmethod
    def manual(cls) -> str:
        """What exo does, why it matters, and how to fix it."""
        return inspect.cleandoc(cls.check.__doc__ or "")
