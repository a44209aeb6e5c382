"""`ops`: each operation of the device beside the reference's, over many cases."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...names import PACKAGE, PROJECT
from ..board.board import FAULTS, BoardError, Result
from ..board.board import run as run_board
from ..board.cases import DEFAULT, Case, of_model, parsed
from ..board.device import COMPARED, HEADS_OF, SOURCE, START
from ..board.measure import work
from ..llama.config import Config
from ..plugin import Plugin
from .options import positive
from .output import CommandError, sentence, show

NOTHING = 2  # exit code: no case matched, or none was run
_WORDS = {"missing": "not there", "skipped": "not run"}


def add_to(commands: Any) -> None:
    """The command's line."""
    text = f"compare each operation of {SOURCE} with the reference's"
    command = commands.add_parser("ops", help=text)
    text = f"{', '.join(COMPARED)} (default: all)"
    command.add_argument("operations", nargs="*", metavar="OPERATION", help=text)
    which = command.add_mutually_exclusive_group()
    text = "run this one case, as the command prints it; can be given again"
    which.add_argument("--case", action="append", default=[], metavar="TEXT", help=text)
    text = "take the sizes of the model in a Hugging Face folder (default: small and odd ones)"
    which.add_argument("--model", type=Path, metavar="FOLDER", help=text)
    text = "how long a case may take (default: %(default)s)"
    command.add_argument("--seconds", type=positive, default=8.0, metavar="S", help=text)
    command.add_argument("--all", action="store_true", help="a row for each case")
    text = "write what is right there too, without times (default: nowhere)"
    command.add_argument("--report", type=Path, metavar="FILE", help=text)
    command.set_defaults(init=False)
    if START:
        text = f"write an {SOURCE} to begin with, and run nothing"
        command.add_argument("--init", action="store_true", help=text)


async def run(plugin: Plugin, arguments: argparse.Namespace) -> int:
    """Print the board; 0 where nothing is wrong, 1 where something is, 2 where nothing was run."""
    if arguments.init:
        return _init()
    try:
        cases = _chosen(arguments)
    except ValueError as error:
        return _nothing(sentence(error))
    own: dict[str, str] = {}
    results: list[Result] = []
    try:
        async for result in run_board(cases, arguments.seconds, started=own.update):
            results.append(result)
    except BoardError as error:
        return _nothing(sentence(error))
    _print(results, own, arguments.all)
    if arguments.report is not None:
        arguments.report.write_text(report(results, own), encoding="utf-8")
    states = {result.verdict.state for result in results}
    if states & set(FAULTS):
        return 1
    return 0 if "right" in states else _nothing("no case could be run")


def _nothing(text: str) -> int:
    print(f"{PROJECT}: {text}", file=sys.stderr)
    return NOTHING


def _init() -> int:
    """Write operations.py beside backend.py. Raises CommandError where there is one."""
    spec = find_spec(PACKAGE)
    path = Path(next(iter((spec and spec.submodule_search_locations) or ["."]))) / SOURCE
    if path.exists():
        raise CommandError(f"{path} is there already")
    path.write_text(START.format(project=PROJECT), encoding="utf-8")
    print(f"{path}: put your device's operations there, then run {PROJECT} ops")
    return 0


def _chosen(arguments: argparse.Namespace) -> list[Case]:
    """The cases that the command line names. Raises ValueError where there are none."""
    names = arguments.operations
    if unknown := [name for name in names if name not in COMPARED]:
        raise ValueError(f"{unknown[0]!r} is no operation: {', '.join(COMPARED)}")
    cases: Sequence[Case] = [case for case in DEFAULT if case.head_dim % HEADS_OF == 0]
    if arguments.case:
        cases = [parsed(text) for text in arguments.case]
    elif arguments.model is not None:
        try:
            cases = list(of_model(Config.from_folder(arguments.model)))
        except (OSError, RuntimeError) as error:
            raise ValueError(sentence(error)) from error
    chosen = [case for case in cases if case.operation in (names or COMPARED)]
    if not chosen:
        raise ValueError("no case is one of these operations")
    return chosen


def _print(results: list[Result], own: dict[str, str], every: bool) -> None:
    table = [("operation", "whose", "cases", "result", "error", "time", "rate", "reference")]
    groups: list[list[Result]] = [[result] for result in results] if every else grouped(results)
    for group in groups:
        name, last = group[0].case.operation, _timed(group)
        cells = ("", "", "", "")
        if last is not None:
            error = max(r.verdict.error for r in group if r.verdict.state == "right")
            verdict = last.verdict
            times = _rate(last.case, verdict.seconds), _rate(last.case, verdict.reference_seconds)
            cells = (f"{error:.0e}" if error else "0", _time(verdict.seconds), *times)
        what = str(group[0].case) if every else name
        table.append((what, whose(name, own), str(len(group)), word(state_of(group)), *cells))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        show("  ".join(padded).rstrip() + "\n")
    for line in lines(results):
        show(line + "\n")


def lines(results: list[Result]) -> list[str]:
    """A line on each operation's first fault, and the command that runs it again."""
    output: list[str] = []
    seen: set[tuple[str, str]] = set()
    for case, verdict in ((r.case, r.verdict) for r in results):
        key = (case.operation, verdict.state)
        if verdict.state == "right" or key in seen:
            continue
        seen.add(key)
        error = f" (error {verdict.error:.1e})" if 0 < verdict.error < float("inf") else ""
        output.append(f"{case.operation}: {word(verdict.state)}{error}: {verdict.why}")
        if verdict.state in FAULTS:
            output.append(f"  {PROJECT} ops --case {shlex.quote(str(case))}")
    return output


def report(results: list[Result], own: dict[str, str]) -> str:
    """What is right, in a file that the same operations write the same on any machine."""
    rows = [
        f"| {group[0].case.operation} | {whose(group[0].case.operation, own)} | "
        f"{sum(r.verdict.state == 'right' for r in group)} of {len(group)} | "
        f"{word(state_of(group))} |"
        for group in grouped(results)
    ]
    head = f"# Operations\n\n`{PROJECT} ops --report OPERATIONS.md` has written this.\n\n"
    return head + "\n".join(
        [
            "| operation | whose | cases that are right | result |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def grouped(results: list[Result]) -> list[list[Result]]:
    """The results of each operation."""
    names = dict.fromkeys(result.case.operation for result in results)
    return [[r for r in results if r.case.operation == name] for name in names]


def state_of(group: list[Result]) -> str:
    """An operation's state: that of its first fault, else of its first case that isn't right."""
    states = [result.verdict.state for result in group]
    order = [*(s for s in states if s in FAULTS), *(s for s in states if s != "right"), "right"]
    return order[0]


def whose(name: str, own: dict[str, str]) -> str:
    """Who has written an operation; a model is made of all."""
    return "all" if name == "model" else own.get(name, "reference")


def word(state: str) -> str:
    """A state as the board says it."""
    return _WORDS.get(state, state)


def _timed(group: list[Result]) -> Result | None:
    """The right case that took the reference longest."""
    right = [result for result in group if result.verdict.state == "right"]
    return max(right, key=lambda r: r.verdict.reference_seconds, default=None)


def _time(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def _rate(case: Case, seconds: float) -> str:
    amount, unit = work(case)
    return f"{amount / max(seconds, 1e-9) / 1e9:.3g} {unit}"
