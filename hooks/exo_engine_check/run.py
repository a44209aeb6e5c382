"""One run: read the project, run the checks that read it, then those that run it."""

import shlex
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from . import capabilities
from .checks import all_checks, static_checks
from .files import CannotRunError, open_project
from .findings import FAILED, NOT_RUN, PASSED, Finding, Place, Report, Result
from .plugin import Plugin, table_of
from .reading import read_plugin


@dataclass
class Options:
    """What the command was asked for."""

    select: list[str] = field(default_factory=list)
    ignore: list[str] = field(default_factory=list)
    static: bool = False
    report: Path | None = None
    python: str = ""
    timeout: float = 60.0
    memory: float = 4.0  # GiB


def expand(selectors: list[str]) -> set[str]:
    """The ids that start with one of these. Raises CannotRunError."""
    found: set[str] = set()
    for selector in [part.strip() for text in selectors for part in text.split(",")]:
        ids = {name for name in all_checks() if selector and name.startswith(selector)}
        if not ids and selector:
            raise CannotRunError(f"no check begins with {selector}")
        found |= ids
    return found


def check(path: Path, options: Options) -> Report:
    """Check a project's folder or a wheel. Raises CannotRunError."""
    if options.report and (options.static or options.select or options.ignore):
        raise CannotRunError("--report wants all checks: no --static, --select and --ignore")
    with tempfile.TemporaryDirectory(prefix="exo-engine-", ignore_cleanup_errors=True) as name:
        plugin = read_plugin(open_project(path, Path(name, "wheel")))
        table = table_of(plugin.pyproject, "tool", "repo-review")
        told = [t for t in table.get("select", ()) if isinstance(t, str) and t.startswith("EX")]
        chosen = (expand(options.select or told) or set(all_checks())) - expand(options.ignore)
        running, report = chosen - static_checks().keys(), Report()
        if running and not options.static:
            from .running import Run

            run = Run(plugin, Path(name), options.python, options.timeout, options.memory)
            report = run.all_of(running)
        report.results += read(plugin, chosen)
        _compare(plugin, report, options.report)
        report.again = _again(path, options.python)
        _leave_out_ignored(plugin, chosen, report)
        report.results.sort(key=lambda result: result.id)
    _judge(report, options, running)
    return report


def _again(path: Path, python: str) -> str:
    """The command, to be followed by what it is to select."""
    other = ["--python", python] if python not in ("", sys.executable) else []
    return shlex.join(["exo-engine", "check", *([str(path)] if path != Path() else []), *other])


def read(plugin: Plugin, chosen: set[str]) -> list[Result]:
    """The checks that read the project."""
    results = []
    for name, check in static_checks().items():
        if name in chosen:
            findings = sorted(set(check.check.__wrapped__(plugin)))
            results.append(Result(name, FAILED if findings else PASSED, findings))
    return results


def _compare(plugin: Plugin, report: Report, path: Path | None) -> None:
    """What the plugin can do, against what it declares and what its table says."""
    told = table_of(plugin.settings, "cannot")
    report.cannot = {row: " ".join(str(why).split()) for row, why in told.items()}
    report.can = capabilities.cells(report.results)
    stale = [row for row in report.cannot if report.can.get(row) == "yes"]
    found = [f"{row} is declared as what the plugin can't do, and it can" for row in stale]
    places = [plugin.line("[tool.exo-engine.cannot]", row) for row in stale]
    more = list(capabilities.write(report, path)) if path is not None else []
    _add(report, "EX004", map(Finding, places, found))
    _add(report, "EX004", (Finding(Place(str(path)), text) for text in more))


def _leave_out_ignored(plugin: Plugin, chosen: set[str], report: Report) -> None:
    """What is ignored was looked at all the same: a reason that is no longer one has to go."""
    report.ignored = {name: why for _, name, why in sorted(plugin.ignores) if name in chosen}
    for result in [r for r in report.results if r.id in report.ignored]:
        report.results.remove(result)
        if result.state == PASSED:
            message = f"{result.id} is ignored, and passes: the ignore may go"
            place = plugin.line("[tool.", ".ignore]", result.id)
            _add(report, "EX003", [Finding(place, message)])


def _add(report: Report, name: str, found: Iterable[Finding]) -> None:
    """What the run has shown, to a check that has read."""
    for result in report.results:
        if result.id == name and (more := list(found)):
            result.findings, result.state = sorted([*result.findings, *more]), FAILED


def _judge(report: Report, options: Options, running: set[str]) -> None:
    """A run that has looked at nothing is no good news."""
    if options.static:
        if options.select and running:
            names = ", ".join(sorted(running))
            report.notes.append(f"not run, as --static was asked for: {names}")
        if not report.results:
            report.nothing_ran = "--static runs none of the checks that were asked for"
        return
    for result in report.with_state(NOT_RUN) if options.select else ():
        report.notes.append(f"{result.id} was asked for, and not run: {result.why}")
    ran = {r.id for r in report.results if r.state != NOT_RUN}
    if not report.faults and not (ran & running if running else ran):
        why = next((r.why for r in report.results if r.why), "nothing was asked for")
        report.nothing_ran = f"nothing of the plugin was run: {why}"
