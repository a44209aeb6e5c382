"""Runs the plugin: one process for as many checks as it survives, another for the rest."""

import os
import re
import shutil
import sys
import time
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from . import child, host
from .checks import running_checks
from .checks.dependencies import FRAMEWORKS, declared_modules
from .checks.packaging import project_of
from .files import CannotRunError
from .findings import CRASHED, FAILED, HUNG, NOT_RUN, PASSED, Finding, Place, Result
from .plugin import Plugin
from .run import Options, Report

CHECK_SECONDS = 10.0  # for which a check may say nothing; more, where more is given to all


def stand_in() -> Path:
    """The folder of the stand-in host: in the wheel beside this file, else in the template."""
    shipped = Path(__file__).with_name("standin")
    return shipped if shipped.is_dir() else Path(__file__).parents[2] / "template/tests/standin"


def run(plugin: Plugin, folder: Path, names: list[str], options: Options, report: Report) -> None:
    """Add what running the plugin shows to a report. Raises CannotRunError."""
    entries = [e for e in plugin.entry_points if e.group in host.GROUPS and e.is_well_formed]
    here = [
        e for e in entries if plugin.package.modules.get(e.module) or _is_built(plugin, e.module)
    ]
    if not any(e.group == host.GROUP_ENGINES for e in here):
        why = "there is no engine to load: see the other findings"
        report.results += [Result(name, NOT_RUN, why=why) for name in names]
        return
    order = [name for name in running_checks() if name in names]
    faultless = [name for name in order if running_checks()[name].faultless]
    runs = _Runs(plugin, folder, options, report)
    request = runs.request([(e.group, e.name, f"{e.module}:{e.attribute}") for e in here])
    runs.all_of([name for name in order if name not in faultless], request)
    runs.all_of(faultless, request | {"faultless": True})
    report.notes += runs.notes


def _is_built(plugin: Plugin, module: str) -> bool:
    """Whether a module without a source is there in the form that Python imports."""
    parts = module.split(".")
    base = plugin.root.joinpath(plugin.bases.get(parts[0], ""), *parts[:-1])
    return any(base.glob(f"{parts[-1]}.*.so")) or any(base.glob(f"{parts[-1]}.so"))


class _Runs:
    """The processes of one run, and what they said."""

    def __init__(self, plugin: Plugin, folder: Path, options: Options, report: Report) -> None:
        self.plugin, self.folder, self.options, self.report = plugin, folder, options, report
        self.python = options.python or sys.executable
        self.deadline = time.monotonic() + options.seconds
        self.told: set[Finding] = set()
        self.avoid: dict[str, str] = {}  # steps that ended a process, and how
        self.notes: list[str] = []
        self.base = plugin.root.resolve()

    def request(self, entries: list[tuple[str, str, str]]) -> dict[str, Any]:
        """What the child has to know."""
        metadata = self.folder / "metadata"
        _write_metadata(self.plugin, entries, metadata)
        tops = list(dict.fromkeys(value.partition(".")[0] for _, _, value in entries))
        sources = [str(self.base / self.plugin.bases.get(top, "")) for top in tops]
        engine = next(name for group, name, _ in entries if group == host.GROUP_ENGINES)
        project = re.sub(r"\W", "_", self.plugin.metadata.name or tops[0])
        named = {key: self.plugin.settings.get(key) for key in ("device", "tiny-model")}
        return {
            "roots": [str(self.base)],
            "project": str(self.base),
            "path": [str(metadata), *dict.fromkeys(sources)],
            "standin": str(stand_in()),
            "home": str(self.folder / "exo-home"),
            "entry_points": [{"group": g, "name": n, "value": v} for g, n, v in entries],
            "packages": list(dict.fromkeys([*tops, project, engine])),
            "required": sorted(declared_modules(self.plugin)),
            "heavy": sorted(FRAMEWORKS),
            "model_ids": sorted(host.MODEL_IDS),
            "faultless": False,
            **{key: value if isinstance(value, str) else None for key, value in named.items()},
        }

    def all_of(self, names: list[str], request: dict[str, Any]) -> None:
        """Run checks; after a crash or a hang the rest, without the step that led to it."""
        pending = list(names)
        while pending:
            silence = max(CHECK_SECONDS, self.options.seconds / 6)
            limits = child.Limits(silence, self.deadline, int(self.options.memory * 2**30))
            if time.monotonic() > self.deadline:
                why = f"the {self.options.seconds:g} s of --timeout are over"
                self._add(Result(name, NOT_RUN, why=why) for name in pending)
                return
            shutil.rmtree(request["home"], ignore_errors=True)
            asked = request | {"checks": pending, "avoid": self.avoid}
            ended = child.run(self.python, asked, self.folder, limits)
            if not ended.events:
                raise CannotRunError(f"{self.python} can't start{ended.last_words()}")
            seen = self._take(ended)
            if not ended.how:
                return
            lost, step = _lost(ended)
            if lost not in pending or lost in seen:
                why = f"the process {ended.how} between two checks"
                self._add(Result(name, NOT_RUN, why=why) for name in pending if name not in seen)
                return
            finding = Finding(Place(), f"{step or 'the process'} {ended.how}")
            self._add([Result(lost, HUNG if ended.hung else CRASHED, [finding])])
            self.avoid[step] = ended.how
            pending = [name for name in pending if name not in seen and name != lost]

    def _add(self, results: Any) -> None:
        self.report.results += results

    def _take(self, ended: child.Ended) -> set[str]:
        """The results of the checks that ended."""
        findings: dict[str, list[Finding]] = {}
        results: dict[str, Result] = {}
        known = running_checks()
        for event in ended.events:
            if "missing" in event:
                self._missing(event)
            if event.get("check") in known and "message" in event:
                place = Place(self._inside(event.get("path", "")), event.get("line", 0))
                findings.setdefault(event["check"], []).append(Finding(place, event["message"]))
            if (name := event.get("end")) in known and event.get("state") in (
                PASSED,
                FAILED,
                NOT_RUN,
            ):
                results[name] = self._result(name, event, set(findings.get(name, [])))
            self._note(event)
        if "EX952" in results and (line := ended.stdout.strip().decode("utf-8", "replace")):
            said = f"the plugin writes to stdout: {line.splitlines()[0][:80]!r}"
            results["EX952"] = Result("EX952", FAILED, [Finding(Place(), said)])
        self._add(results.values())
        return set(results)

    def _result(self, name: str, event: dict[str, Any], found: set[Finding]) -> Result:
        """What breaks many checks is told by the first of them; the others could not be made."""
        if found and found <= self.told:
            return Result(name, NOT_RUN, why=min(found).message)
        self.told |= found
        state = FAILED if found else event["state"]
        return Result(name, state, sorted(found), event.get("why", ""))

    def _note(self, event: dict[str, Any]) -> None:
        hosts = {"real": "exo itself", "stand-in": "the stand-in for exo"}
        if "can" in event:
            self.report.measured[event["can"]] = event.get("value", "no")
        if "host" in event:
            self.report.host = event["host"]
            text = f"run on {hosts.get(event['host'], 'no exo')}, with {self.python}"
            self.notes += [text] if text not in self.notes else []

    def _inside(self, file: str) -> str:
        try:
            return Path(file).resolve().relative_to(self.base).as_posix() if file else ""
        except (OSError, ValueError):
            return ""

    def _missing(self, event: dict[str, Any]) -> None:
        """A required library that this Python lacks is no fault of the plugin's."""
        top = event["missing"].partition(".")[0]
        if top == "exo":
            raise CannotRunError(
                f"{event.get('message', top)}; the stand-in for exo has no more than an engine "
                f"needs. Name a Python that has exo with --python ({host.GET_EXO})"
            )
        names = {top.replace("_", "-").lower()}
        names |= {project_of(found) for found in packages_distributions().get(top, [])}
        required = {project_of(t) for t, extra, _ in self.plugin.metadata.requirements if not extra}
        if names & (required | {"numpy"}) or top in declared_modules(self.plugin):
            raise CannotRunError(
                f"{self.python} has no {top}, which the plugin requires: install the plugin there, "
                "name another Python with --python, or only read the plugin with --static"
            )


def _lost(ended: child.Ended) -> tuple[str, str]:
    """The check that was under way, and its step."""
    check, step = "", ""
    for event in ended.events:
        if "begin" in event:
            check, step = event["begin"], ""
        if "step" in event:
            step = event["step"]
    return check, step


def _write_metadata(plugin: Plugin, entries: list[tuple[str, str, str]], folder: Path) -> None:
    """What an installation would leave for importlib.metadata."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", plugin.metadata.name or "plugin")
    info = folder / f"{name}-0.dist-info"
    os.makedirs(info, exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n"
    (info / "METADATA").write_text(text, encoding="utf-8")
    lines: list[str] = []
    for group in dict.fromkeys(group for group, _, _ in entries):
        lines.append(f"[{group}]")
        lines += [f"{name} = {value}" for g, name, value in entries if g == group]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
