"""CAPABILITIES.md: what the plugin can do on each exo, as the checks of a run report it."""

import re
from collections.abc import Iterator
from pathlib import Path

from .checks import running_checks
from .files import CannotRunError, UnreadableError, is_file, read_text, reason
from .report import NOT_RUN, NOT_THERE, Fault, Place, Report, Result, printable

HOSTS = ("0.0", "0.3")
ROWS = (
    *("answers", "lossless text", "streaming", "cancel", "sampling", "penalties", "logprobs"),
    *("tools", "images", "split by layers", "whole model in a cluster", "batching", "reuse"),
    *("precision", "metrics", "faults"),
)
_HEAD = """\
# What this plugin can do

`exo-engine check --report CAPABILITIES.md` has written this from a run on stand-ins for both
exos or, with `--python`, on one itself. A row that says more than a run is a fault: where less is
right, take the row out. A cell is empty where nothing of the kind is checked.

| what | exo 0.0 | exo 0.3 | why not |
| --- | --- | --- | --- |
"""


def cells(results: list[Result]) -> dict[str, dict[str, str]]:
    """Each row's cells by host: yes, partly with numbers, no, not run, not there, or nothing."""
    ran, checks = {result.id: result for result in results}, running_checks().items()
    table: dict[str, dict[str, str]] = {row: {} for row in ROWS}
    for row, cells_of_row in table.items():
        for host in HOSTS:
            of_cell = [(n, check) for n, check in checks if (check.row, check.host) == (row, host)]
            cells_of_row[host] = _cell([ran.get(n) or Result(c, NOT_RUN) for n, c in of_cell])
    return table


def _cell(results: list[Result]) -> str:
    for state in (NOT_RUN, NOT_THERE):
        if results and all(result.state == state for result in results):
            return state
    good, of = sum(r.good for r in results), sum(r.of for r in results)
    if good == of:
        return "yes" if results else ""
    return f"partly ({good} of {of})" if good else "no"


def is_whole(cells_of_row: dict[str, str]) -> bool:
    """Whether there is nothing in a row that the plugin can't do."""
    known = set(cells_of_row.values()) - {"", NOT_RUN, NOT_THERE}
    return known == {"yes"}


def worth(cell: str) -> float:
    """How much of it the plugin can do by this cell, from 0 to 1."""
    share = re.fullmatch(r"partly \((\d+) of ([1-9]\d*)\)", cell)
    return int(share[1]) / int(share[2]) if share else float(cell == "yes")


def write(report: Report, path: Path) -> Iterator[Fault]:
    """Write the table; where it says more than the run, give what and leave it. CannotRunError."""
    if not report.hosts:
        raise CannotRunError("--report: nothing of the plugin was run")
    old, lines, lost = _read(path), list[str](), list[Fault]()
    for row, of_row in report.can.items():
        before = dict(zip(HOSTS, old.get(row, []), strict=False))
        for host, cell in of_row.items():
            if cell == NOT_RUN:  # that is no word against the table
                of_row[host] = before.get(host, cell)
            elif worth(before.get(host, "")) > worth(cell):
                message = (
                    f"{row} on exo {host} is declared as {before[host]}, and the run gives {cell}"
                )
                lost.append(Fault(Place(str(path)), message))
        why = printable(report.cannot.get(row, "")).replace("|", "\\|")
        lines.append(" ".join(f"| {row} | {' | '.join(of_row.values())} | {why} |".split()) + "\n")
    if not lost:
        try:
            path.write_text(_HEAD + "".join(lines), encoding="utf-8")
        except OSError as error:
            raise CannotRunError(f"{path}: {reason(error)}") from error
    yield from lost


def _read(path: Path) -> dict[str, list[str]]:
    """The cells of the table that is there, by row; none of a table with other columns."""
    try:
        lines = read_text(path).splitlines() if is_file(path) else []
    except UnreadableError as error:
        raise CannotRunError(f"{path} {error}") from error
    rows = [[part.strip() for part in line.split("|")[1:]] for line in lines if "|" in line]
    other = any(row[0] == "what" and row[1:3] != [f"exo {host}" for host in HOSTS] for row in rows)
    return {row[0]: row[1:3] for row in rows if len(row) > 2} if not other else {}
