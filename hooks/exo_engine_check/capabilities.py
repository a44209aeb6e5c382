"""--report: what the plugin can do, on the stand-in and on exo itself, as runs have shown it."""

import re
from pathlib import Path

from .files import CannotRunError, UnreadableError, is_file, read_text, reason
from .findings import NOT_RUN, PASSED, printable
from .plugin import Plugin
from .run import Report
from .tables import table_of

# What a contract with exo has, and the checks that see it; what has none is measured by the child.
ROWS: dict[str, tuple[str, ...]] = {
    "answers": ("EX801", "EX802", "EX803", "EX807"),
    "lossless text": (),
    "interleaved requests": ("EX805",),
    "sampling": (),
    "split by layers": (),
    "two nodes": ("EX804",),
    "bounded state": ("EX809", "EX902"),
    "metrics": ("EX605", "EX810"),
    "faults of the device": ("EX808", "EX903"),
    "faults of the cluster": ("EX901", "EX904", "EX905", "EX906"),
    "a mended exo": ("EX907",),
    "faults of the machine": ("EX502", "EX503", "EX504"),
}
HOSTS = {"stand-in": "stand-in", "real": "exo"}
_HEAD = "| what | stand-in | exo |"
_RANK = {"yes": 2, "partly": 1}


def of_run(report: Report) -> dict[str, str]:
    """Each row's cell: yes, partly with numbers, no, or not run."""
    states = {result.id: result.state for result in report.results}
    cells = {}
    for row, checks in ROWS.items():
        ran = [states[name] for name in checks if states.get(name, NOT_RUN) != NOT_RUN]
        good = ran.count(PASSED)
        cells[row] = (
            report.measured.get(row, "not run")
            if not checks
            else (
                "not run"
                if not ran
                else "yes"
                if good == len(ran)
                else f"partly ({good} of {len(ran)})"
                if good
                else "no"
            )
        )
    return cells


def write(report: Report, plugin: Plugin, path: Path) -> list[str]:
    """Write the table of this run beside the other host's column; what it lost, in sentences.

    A table that says more than the run is not replaced: the plugin has become worse, or the table
    was written by hand. Raises CannotRunError.
    """
    if report.host not in HOSTS:
        raise CannotRunError("--report: nothing of the plugin was run")
    column = list(HOSTS).index(report.host)
    old, now = _read(path), of_run(report)
    reasons = table_of(plugin.pyproject, "tool", "exo-engine", "cannot")
    lost = [
        f"{path.name} says that {row} is {cells[column]}, and the run says {now[row]}"
        for row, cells in old.items()
        if row in now and _rank(cells[column]) > _rank(now[row])
    ]
    for row, why in reasons.items():
        if row not in ROWS:
            lost.append(f"[tool.exo-engine.cannot] names {row}, which is no row of the table")
        elif now[row] == "yes":
            lost.append(f"{row} is declared as what the plugin can't do ({why}), and it can")
    if not lost:
        lines = [_HEAD, "| --- | --- | --- |"]
        for row, cell in now.items():
            cells = [*old.get(row, ["not run", "not run"])]
            cells[column] = cell
            note = f": {printable(reasons[row])}" if row in reasons else ""
            lines.append(f"| {row} | {' | '.join(c + note * (c != 'yes') for c in cells)} |")
        text = "What this plugin can do; written by `exo-engine check --report`.\n\n"
        try:
            path.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")
        except OSError as error:
            raise CannotRunError(f"{path}: {reason(error)}") from error
    return lost


def _rank(cell: str) -> int:
    return _RANK.get(cell.split(" ")[0], 0)


def _read(path: Path) -> dict[str, list[str]]:
    """The cells of a table that was written before, without the reasons."""
    if not is_file(path):
        return {}
    try:
        lines = read_text(path).splitlines()
    except UnreadableError as error:
        raise CannotRunError(f"{path} {error}") from error
    rows = [re.split(r"\s*\|\s*", line.strip().strip("|").strip()) for line in lines if "|" in line]
    return {row[0]: [c.partition(":")[0] for c in row[1:]] for row in rows if len(row) == 3}
