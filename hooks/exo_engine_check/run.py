"""One run of the checks, through repo-review's processor."""

from dataclasses import dataclass, field, replace
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from .checks import FAMILIES, repo_review_checks
from .files import CannotRunError, open_project
from .findings import Check, Finding, parse
from .plugin import Plugin
from .reading import read_plugin

CONFIG_TABLES = ("repo-review", "exo-engine")


@dataclass(frozen=True, order=True)
class Fault:
    """A finding with the check that made it."""

    id: str
    finding: Finding
    title: str
    manual: str
    url: str


@dataclass
class Report:
    """What a run found. Everything is sorted, so that two runs give the same text."""

    faults: list[Fault] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)
    passed: int = 0
    notes: list[str] = field(default_factory=list)


def expand(selectors: list[str], known: dict[str, Check]) -> frozenset[str]:
    """The ids that start with one of these. Raises CannotRunError."""
    found: set[str] = set()
    for selector in [part.strip() for text in selectors for part in text.split(",")]:
        ids = {name for name in known if selector and name.startswith(selector)}
        if not ids and selector:
            raise CannotRunError(f"no check begins with {selector}")
        found |= ids
    return frozenset(found)


def ignores(plugin: Plugin) -> dict[str, str]:
    """Ids that the project ignores, with the reasons that it gives.

    repo-review matches a family's letters too (EX for all); here an id is always whole.
    """
    found: dict[str, str] = {}
    tool = plugin.pyproject.get("tool")
    for table in CONFIG_TABLES:
        section = tool.get(table) if isinstance(tool, dict) else None
        ignore = section.get("ignore", {}) if isinstance(section, dict) else {}
        if isinstance(ignore, dict):
            found |= {name: text for name, text in ignore.items() if isinstance(text, str)}
        elif isinstance(ignore, list):
            found |= {name: "" for name in ignore if isinstance(name, str)}
    known = repo_review_checks()
    return {name: " ".join(text.split()) for name, text in sorted(found.items()) if name in known}


def selected(plugin: Plugin) -> list[str]:
    """What `[tool.repo-review] select` chooses of these checks; nothing means all."""
    tool = plugin.pyproject.get("tool")
    section = tool.get("repo-review") if isinstance(tool, dict) else None
    select = section.get("select", []) if isinstance(section, dict) else []
    select = select if isinstance(select, list) else []
    return [name for name in select if isinstance(name, str) and name.startswith("EX")]


def check(
    path: Path,
    select: list[str],
    ignore: list[str],
    loads: "Loads | None" = None,
) -> Report:
    """Check a project's folder or a wheel. Raises CannotRunError."""
    root = open_project(path)
    plugin = read_plugin(root)
    seen, notes = (None, []) if loads is None else loads.run(plugin, path)
    report = process(root, plugin, select, ignore, seen, [*notes, *plugin.unseen])
    return report if plugin.is_wheel else _from_here(report, path)


def _from_here(report: Report, project: Path) -> Report:
    """Paths from the working folder, as GitHub wants them, where the project is in it."""
    try:
        inside = project.resolve().relative_to(Path.cwd())
    except ValueError:
        return report
    for n, fault in enumerate(report.faults):
        if place := fault.finding.place.path:
            found = replace(fault.finding.place, path=(inside / place).as_posix())
            finding = replace(fault.finding, place=found)
            report.faults[n] = replace(fault, finding=finding)
    return report


@dataclass(frozen=True)
class Loads:
    """How `--import` is to be done."""

    python: str
    seconds: float

    def run(self, plugin: Plugin, path: Path) -> tuple[dict[str, list[Finding]], list[str]]:
        from .importing import load

        return load(plugin, path, self.python, self.seconds)


def process(
    root: Traversable,
    plugin: Plugin,
    select: list[str],
    ignore: list[str],
    seen: dict[str, list[Finding]] | None,
    notes: list[str],
) -> Report:
    """Run repo-review's processor on these checks alone."""
    from repo_review.processor import CollectionReturn
    from repo_review.processor import process as review

    checks = repo_review_checks()
    chosen = expand(select or selected(plugin), checks) or frozenset(checks)
    dropped = expand(ignore, checks)
    if seen is None:
        if any(selector.startswith("EX9") for selector in select):
            notes = [*notes, "EX9 needs --import"]
        chosen -= {name for name in checks if checks[name].family == "exo-import"}
    reasons = ignores(plugin)
    config: dict[str, Any] = {"tool": {"repo-review": {"ignore": reasons}}}
    fixtures = {"pyproject": config, "exo_plugin": plugin, "exo_import": seen}
    # Their types are repo-review's in all but name: naming them would import it at the start.
    collected = CollectionReturn(fixtures, checks, FAMILIES)  # type: ignore[arg-type]
    skipped = dropped | reasons.keys() | (checks.keys() - chosen)
    _, results = review(root, select=chosen, ignore=skipped, collected=collected)
    report = Report(notes=notes)
    for result in results:
        if result.name in reasons and result.name in chosen - dropped:
            report.ignored[result.name] = reasons[result.name]
        elif result.result:
            report.passed += 1
        elif result.result is False:
            found, manual = parse(result.err_msg)
            report.faults += [
                Fault(result.name, finding, result.description, manual, result.url)
                for finding in found
            ]
    report.faults.sort()
    return report
