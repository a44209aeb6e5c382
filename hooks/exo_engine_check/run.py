"""One run: read the project, run the plugin, then judge what it says of itself."""

import contextlib
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import capabilities
from .checks import running_checks, static_checks
from .checks.dependencies import declared_modules
from .files import CannotRunError, bounded_memory, open_project
from .inside.check import Check
from .plugin import Plugin, table_of
from .reading import read_plugin
from .report import FAILED, LEFT, NOT_RUN, NOT_THERE, PASSED, Fault, Report, Result


@dataclass
class Options:
    """The options of the command."""

    select: list[str] = field(default_factory=list)
    ignore: list[str] = field(default_factory=list)
    static: bool = False
    traceback: bool = False
    strict: bool = False
    report: Path | None = None
    python: str = ""
    timeout: float = 60.0  # seconds
    memory: float = 4.0  # GiB


class EX003(Check):
    "Every ignored check has a reason"

    @staticmethod
    def check(plugin: Plugin, report: Report) -> Iterator[Fault]:
        """Nobody can tell later whether an ignore without a reason may go. Write the reason beside
        the id, as a table: `[tool.exo-engine.ignore]` with `EX501 = "the SDK has no such call"`.
        `[tool.repo-review.ignore]` has the same form, and is read too. An ignored check is run all
        the same: where it passes, the ignore may go."""
        known, passed = all_checks(), {result.id for result in report.with_state(PASSED)}
        for table, name, why in plugin.ignores:
            place = plugin.line(f"[tool.{table}", "ignore", name)
            if table == "exo-engine" and name not in known:
                yield Fault(place, f"there is no check {name}")
            elif name in known and not why:
                yield Fault(place, f"{name} is ignored without a reason")
            elif name in passed:
                yield Fault(place, f"{name} is ignored, and passes: the ignore may go")


class EX004(Check):
    "The plugin can do what it declares"

    @staticmethod
    def check(plugin: Plugin, report: Report) -> Iterator[Fault]:
        """Who chooses a plugin reads what it can do, and a promise that no longer holds is found by
        its users. Where CAPABILITIES.md says more than a run shows, fix the plugin, or take the row
        out. What it can't do by design has its reason in `[tool.exo-engine.cannot]`, as
        `reuse = "the server keeps its own"`, which goes when it can."""
        for row, why in table_of(plugin.settings, "cannot").items():
            place = plugin.line("[tool.exo-engine.cannot]", row)
            if row not in capabilities.ROWS:
                rows = ", ".join(capabilities.ROWS)
                yield Fault(place, f"{row} is no row of CAPABILITIES.md: {rows}")
            elif not (isinstance(why, str) and why.strip()):
                yield Fault(place, f"{row} is declared without a reason")
            elif capabilities.is_whole(report.can.get(row, {})):  # repo-review runs nothing
                yield Fault(place, f"{row} is declared as what the plugin can't do, and it can")
        yield from report.lost


# They read what the others have reported.
LAST: dict[str, type[Check]] = {"EX003": EX003, "EX004": EX004}


def all_checks() -> dict[str, type[Check]]:
    """All checks, by id."""
    return dict(sorted((static_checks() | running_checks() | LAST).items()))


def expand(selectors: list[str]) -> set[str]:
    """The ids that start with one of these. Raises CannotRunError."""
    selected: set[str] = set()
    for selector in [part.strip() for text in selectors for part in text.split(",")]:
        ids = {name for name in all_checks() if selector and name.startswith(selector)}
        if not ids and selector:
            raise CannotRunError(f"no check begins with {selector}")
        selected |= ids
    return selected


def check(path: Path, options: Options) -> Report:
    """Check a project's folder or a wheel. Raises CannotRunError."""
    if options.report and (options.static or options.select or options.ignore):
        raise CannotRunError("--report wants all checks: no --static, --select and --ignore")
    with tempfile.TemporaryDirectory(prefix="exo-engine-", ignore_cleanup_errors=True) as name:
        with bounded_memory():
            plugin = read_plugin(open_project(path, Path(name, "wheel")))
        chosen = _chosen(plugin, options)
        running = chosen & running_checks().keys()
        report = _run(plugin, chosen, set() if options.static else running, options, Path(name))
        _judge_declarations(plugin, chosen, report, options)
        report.results.sort(key=lambda result: result.order)
    other = ["--python", options.python] if options.python not in ("", sys.executable) else []
    place = [str(path)] if path != Path() else []
    report.traceback = options.traceback
    report.again = shlex.join(["exo-engine", "check", *place, *other])
    _explain(report, options, running)
    return report


def _chosen(plugin: Plugin, options: Options) -> set[str]:
    """The ids of the checks that are to be run."""
    table = table_of(plugin.pyproject, "tool", "repo-review")
    own = [t for t in table.get("select", ()) if isinstance(t, str) and t.startswith("EX")]
    return (expand(options.select or own) or set(all_checks())) - expand(options.ignore)


def _run(
    plugin: Plugin, chosen: set[str], running: set[str], options: Options, folder: Path
) -> Report:
    """Run the plugin, and read the project meanwhile."""
    with contextlib.ExitStack() as stack:
        report, processes = Report(), None
        if running:
            from .processes import Processes

            limits = options.python, options.timeout, options.memory
            processes = stack.enter_context(contextlib.closing(Processes(plugin, folder, *limits)))
            with _noted(report):
                processes.start(running)
        with bounded_memory():
            checks = [each for name, each in static_checks().items() if name in chosen]
            read = [_result(each, each.check(plugin)) for each in checks]
            required = declared_modules(plugin) if running else set()
        if processes and not report.nothing_ran:
            with _noted(report):
                report = processes.finish(required)
    report.results += read
    return report


@contextlib.contextmanager
def _noted(report: Report) -> Iterator[None]:
    """What reading finds is still said where nothing can be run."""
    try:
        yield
    except CannotRunError as error:
        report.nothing_ran = str(error)


def _result(each: type[Check], faults: Iterator[Fault]) -> Result:
    every = sorted(set(faults))
    return Result(each, FAILED if every else PASSED, every)


def _judge_declarations(plugin: Plugin, chosen: set[str], report: Report, options: Options) -> None:
    """What the plugin ignores and declares, against what the others have reported."""
    reasons = table_of(plugin.settings, "cannot").items()
    report.cannot = {row: " ".join(str(why).split()) for row, why in reasons}
    report.can = capabilities.cells(report.results)
    if options.report is not None and not report.nothing_ran:
        report.lost = list(capabilities.write(report, options.report))
    for name, each in LAST.items():
        if name in chosen:
            report.results.append(_result(each, each.check(plugin, report)))
    if report.lost:
        report.results[-1].alone = f"--report {options.report}"
    elif reasons and "EX004" in chosen:
        ids = [name for name, check in running_checks().items() if check.row in dict(reasons)]
        report.results[-1].alone = f"--select {','.join(['EX004', *ids])}"
    report.ignored = {name: why for _, name, why in sorted(plugin.ignores) if name in chosen}
    report.results = [r for r in report.results if r.id not in report.ignored]
    for result in report.with_state(FAILED) if not options.strict else ():
        if result.check.host_fault:
            result.state = LEFT


def _explain(report: Report, options: Options, running: set[str]) -> None:
    """A run that has looked at nothing is no good news."""
    if options.static:
        if options.select and running:
            names = ", ".join(sorted(running))
            report.notes.append(f"not run because of --static: {names}")
        if not report.results:
            report.nothing_ran = "--static runs none of the checks that were selected"
        return
    ran = {r.id for r in report.results if r.state not in {NOT_RUN, NOT_THERE}}
    if not (report.faults or report.nothing_ran or (ran & running if running else ran)):
        why = next((r.why for r in report.results if r.why), "nothing was selected")
        report.nothing_ran = f"nothing of the plugin was run: {why}"
