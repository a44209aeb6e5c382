"""CAPABILITIES.md: what the plugin can do, on each host, as the checks of a run report it."""

import re
from collections.abc import Iterator
from pathlib import Path

from .checks import running_checks
from .files import CannotRunError, UnreadableError, is_file, read_text, reason
from .report import NOT_RUN, Fault, Place, Report, Result, printable

ROWS = (
    *("lossless text", "streaming", "cancel", "sampling", "split by layers"),
    *("whole model in a cluster", "batching", "reuse", "precision", "metrics", "faults"),
)
_COLUMNS = {"the stand-in for exo": 0, "exo itself": 1}
_HEAD = """\
# What this plugin can do

`exo-engine check --report CAPABILITIES.md` has written this from a run; with `--python`, on exo
itself. A row that says more than a run is a fault: where less is right, take the row out.

| what | stand-in | exo | why not |
| --- | --- | --- | --- |
"""


def cells(results: list[Result]) -> dict[str, str]:
    """Each row's cell: yes, partly with numbers, no, or not run."""
    ran, checks = {result.id: result for result in results}, running_checks()
    ids = {row: [name for name, check in checks.items() if check.row == row] for row in ROWS}
    return {
        row: _cell([ran.get(n) or Result(checks[n], NOT_RUN) for n in ids[row]]) for row in ROWS
    }


def _cell(results: list[Result]) -> str:
    if all(result.state == NOT_RUN for result in results):
        return NOT_RUN
    good, of = sum(r.good for r in results), sum(r.of for r in results)
    return "yes" if good == of else f"partly ({good} of {of})" if good else "no"


def worth(cell: str) -> float:
    """How much of it the plugin can do by this cell, from 0 to 1."""
    share = re.fullmatch(r"partly \((\d+) of ([1-9]\d*)\)", cell)
    return int(share[1]) / int(share[2]) if share else float(cell == "yes")


def write(report: Report, path: Path) -> Iterator[Fault]:
    """Write a run's column; where the table says more, give what and leave it. CannotRunError."""
    if report.host not in _COLUMNS:
        raise CannotRunError("--report: nothing of the plugin was run")
    column, old = _COLUMNS[report.host], _read(path)
    lines, lost = [], list[Fault]()
    for row, cell in report.can.items():
        before = old.get(row, [NOT_RUN, NOT_RUN])
        if worth(before[column]) > worth(cell):
            message = f"{row} is declared as {before[column]}, and the run gives {cell}"
            lost.append(Fault(Place(str(path)), message))
        before[column] = cell
        why = printable(report.cannot.get(row, "")).replace("|", "\\|")
        lines.append(" ".join(f"| {row} | {' | '.join(before)} | {why} |".split()) + "\n")
    if not lost:
        try:
            path.write_text(_HEAD + "".join(lines), encoding="utf-8")
        except OSError as error:
            raise CannotRunError(f"{path}: {reason(error)}") from error
    yield from lost


def _read(path: Path) -> dict[str, list[str]]:
    """The cells of the table that is there, of both columns, by row."""
    try:
        lines = read_text(path).splitlines() if is_file(path) else []
    except UnreadableError as error:
        raise CannotRunError(f"{path} {error}") from error
    rows = [[part.strip() for part in line.split("|")[1:]] for line in lines if "|" in line]
    return {row[0]: row[1:3] for row in rows if len(row) > 2}
