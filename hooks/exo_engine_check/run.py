"""One run: read the project, run the checks that read it, then those that run it."""

import shlex
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from .checks import all_checks, static_checks
from .files import CannotRunError, open_project
from .findings import FAILED, NOT_RUN, PASSED, Finding, Result
from .plugin import Plugin
from .reading import read_plugin
from .tables import table_of


@dataclass
class Options:
    """What the command was asked for."""

    select: list[str] = field(default_factory=list)
    ignore: list[str] = field(default_factory=list)
    static: bool = False
    python: str = ""
    seconds: float = 60.0
    memory: float = 4.0  # GiB
    report: Path | None = None  # where the table of what the plugin can do stands


@dataclass
class Report:
    """What became of every check, in the order of the ids."""

    results: list[Result] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)  # ids, with the reasons given
    notes: list[str] = field(default_factory=list)
    nothing_ran: str = ""  # why: it ends with 2
    host: str = ""  # stand-in or real
    measured: dict[str, str] = field(default_factory=dict)  # what no check finds fault with
    again: str = "exo-engine check"  # the command that made it
    lost: list[str] = field(default_factory=list)  # what --report says against the table

    def with_state(self, *states: str) -> list[Result]:
        return [result for result in self.results if result.state in states]

    @property
    def faults(self) -> list[tuple[str, Finding]]:
        return [(r.id, finding) for r in self.results for finding in r.findings]


def expand(selectors: list[str]) -> set[str]:
    """The ids that start with one of these. Raises CannotRunError."""
    found: set[str] = set()
    known = all_checks()
    for selector in [part.strip() for text in selectors for part in text.split(",")]:
        ids = {name for name in known if selector and name.startswith(selector)}
        if not ids and selector:
            raise CannotRunError(f"no check begins with {selector}")
        found |= ids
    return found


def ignores(plugin: Plugin) -> dict[str, str]:
    """Whole ids that the project ignores, with the reasons that it gives."""
    found: dict[str, str] = {}
    for table in ("repo-review", "exo-engine"):
        ignore = table_of(plugin.pyproject, "tool", table).get("ignore", {})
        listed = dict.fromkeys(map(str, ignore), "") if isinstance(ignore, list) else ignore
        for name, text in listed.items() if isinstance(listed, dict) else ():
            found[name] = text if isinstance(text, str) else ""
    known = all_checks()
    return {name: " ".join(text.split()) for name, text in sorted(found.items()) if name in known}


def selected(plugin: Plugin) -> list[str]:
    """What `[tool.repo-review] select` chooses of these checks; nothing means all."""
    select = table_of(plugin.pyproject, "tool", "repo-review").get("select", [])
    select = select if isinstance(select, list) else []
    return [name for name in select if isinstance(name, str) and name.startswith("EX")]


def check(path: Path, options: Options) -> Report:
    """Check a project's folder or a wheel. Raises CannotRunError."""
    with tempfile.TemporaryDirectory(prefix="exo-engine-", ignore_cleanup_errors=True) as name:
        root = open_project(path, Path(name, "wheel"))
        plugin = read_plugin(root)
        chosen = expand(options.select or selected(plugin)) or set(all_checks())
        report = Report(again=_again(path, options))
        reasons, dropped = ignores(plugin), expand(options.ignore)
        chosen -= dropped
        report.ignored = {n: text for n, text in reasons.items() if n in chosen}
        report.results = read(plugin, chosen)
        running = sorted(chosen - static_checks().keys())
        if running and not options.static:
            from .running import run

            run(plugin, Path(name), running, options, report)
        _leave_out_ignored(plugin, report)
        report.results.sort(key=lambda result: result.id)
        if options.report is not None:
            from .capabilities import write

            report.lost = write(report, plugin, options.report)
    _judge(report, options, running)
    return report if plugin.is_wheel else _from_here(report, path)


def _again(path: Path, options: Options) -> str:
    """The command, to be followed by what it is to select."""
    command = ["exo-engine", "check", *([str(path)] if path != Path() else [])]
    if options.python not in ("", sys.executable):
        command += ["--python", options.python]
    return shlex.join(command)


def read(plugin: Plugin, chosen: set[str]) -> list[Result]:
    """The checks that read the project."""
    results = []
    for name, check in static_checks().items():
        if name in chosen:
            findings = sorted(set(check.check.__wrapped__(plugin)))
            results.append(Result(name, FAILED if findings else PASSED, findings))
    return results


def _leave_out_ignored(plugin: Plugin, report: Report) -> None:
    """What is ignored was looked at all the same: a reason that is no longer one has to go."""
    stale = []
    for result in [r for r in report.results if r.id in report.ignored]:
        report.results.remove(result)
        if result.state == PASSED:
            place = plugin.line("tool", "exo-engine", "ignore", result.id)
            stale.append(Finding(place, f"{result.id} is ignored, and passes: the ignore may go"))
    for result in report.results:
        if result.id == "EX003" and stale:
            result.findings, result.state = sorted([*result.findings, *stale]), FAILED


def _judge(report: Report, options: Options, running: list[str]) -> None:
    """A run that has looked at nothing is no good news."""
    asked = bool(options.select)
    if options.static:
        if asked and running:
            report.notes.append(f"not run, as --static was asked for: {', '.join(running)}")
        if not report.results:
            report.nothing_ran = "--static runs none of the checks that were asked for"
        return
    ran = [r for r in report.results if r.state != NOT_RUN]
    if asked:
        for result in report.with_state(NOT_RUN):
            report.notes.append(f"{result.id} was asked for, and not run: {result.why}")
    seen = {r.id for r in ran} & set(running)
    if not report.faults and not (seen if running else ran):
        why = next((r.why for r in report.results if r.why), "nothing was asked for")
        report.nothing_ran = f"nothing of the plugin was run: {why}"


def _from_here(report: Report, project: Path) -> Report:
    """Paths from the working folder, as GitHub wants them, where the project is in it."""
    try:
        inside = project.resolve().relative_to(Path.cwd())
    except ValueError:
        return report
    for result in report.results:
        result.findings = [
            replace(f, place=replace(f.place, path=(inside / f.place.path).as_posix()))
            if f.place.path
            else f
            for f in result.findings
        ]
    return report
