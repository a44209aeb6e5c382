"""Runs the plugin: on each exo one process for as many checks as it survives, one for the rest.

The processes of both exos start at once, and import the plugin; the device is one's after the
other's.
"""

import contextlib
import re
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from . import host
from .capabilities import HOSTS
from .checks import running_checks
from .checks.dependencies import is_of
from .checks.packaging import project_of
from .files import CannotRunError
from .plugin import EntryPoint, Plugin
from .report import (
    CANNOT,
    CRASHED,
    FAILED,
    HUNG,
    NOT_RUN,
    NOT_THERE,
    PASSED,
    Fault,
    Place,
    Report,
    Result,
)
from .sandbox import Ended, Limits, Sandbox

ANSWER_SECONDS = 4.0  # in which an answer has to end, or an error has to end it
CHECK_SECONDS = 10.0  # for which a check may say nothing; more, where more is given to all
_STAND_INS = {"0.0": "standin", "0.3": "standin_0_3"}


def stand_ins() -> dict[str, str]:
    """The folders of the stand-in hosts: in the wheel beside this file, else in the template."""
    shipped, template = Path(__file__).parent, Path(__file__).parents[2] / "template" / "tests"
    base = shipped if (shipped / "standin").is_dir() else template
    return {version: str(base / name) for version, name in _STAND_INS.items()}


class Processes:
    """The processes of one run, and what becomes of their checks."""

    def __init__(
        self, plugin: Plugin, folder: Path, python: str, seconds: float, memory: float
    ) -> None:
        self.plugin, self.folder, self.python = plugin, folder, python or sys.executable
        self.seconds, self.memory = seconds, int(memory * 2**30)
        self.deadline = time.monotonic() + seconds
        self.pending: dict[str, list[str]] = {}  # checks by exo
        self.started: dict[str, Sandbox] = {}  # by exo
        self.required: list[str] = []
        self.causes: set[str] = set()  # of faults, or their sentences
        self.avoid: dict[str, str] = {}  # steps that ended a process, and how
        self.printing: list[str] = []  # checks during which the plugin wrote to stdout
        self.report, self.checks = Report(), running_checks()

    def start(self, names: set[str]) -> None:
        """Start a process for the checks of each exo. Raises CannotRunError."""
        here = (e for e in self.plugin.followed() if self.plugin.is_here(e.module))
        entries = [entry for entry in here if not self.plugin.lacks(entry)]
        groups, of = {entry.group for entry in entries}, dict[str, list[str]]()
        for name, check in self.checks.items():
            if name in names:
                of.setdefault(check.host, []).append(name)
        if "0.0" in of and not groups & {*host.GROUPS}:
            why = "no entry point leads to anything: see the other faults"
            self._not_run(of.pop("0.0"), why)
        if "0.3" in of and host.GROUP_PLUGINS not in groups:
            why = f"exo 0.3 finds no plugin without an entry point of {host.GROUP_PLUGINS}"
            self._not_run(of.pop("0.3"), why, NOT_THERE)
        if of:
            self.request = self._request(entries)
        for version in [version for version in HOSTS if version in of]:
            self.pending[version] = of[version]
            self.started[version] = self._start(version)

    def _start(self, version: str) -> Sandbox:
        folder = self.folder / version
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        own = {"home": str(folder / "exo-home"), "checks": self.pending[version]}
        return Sandbox(self.python, self.request | own | {"avoid": self.avoid}, folder)

    def finish(self, required: set[str]) -> Report:
        """Watch them to their end, one exo's after the other's. Raises CannotRunError.

        required: the modules that the plugin imports and its requirements bring.
        """
        self.required = sorted(required)
        for version, pending in self.pending.items():
            while pending:
                if time.monotonic() > self.deadline:
                    self._not_run(pending, f"the {self.seconds:g} s of --timeout are over")
                    break
                self._watch(version, pending)
        if hosts := " and ".join(self.report.hosts.values()):
            self.report.notes.append(f"run on {hosts}, with {self.python}")
        return self.report

    def _watch(self, version: str, pending: list[str]) -> None:
        """After a crash or a hang the rest goes on, without the step that led to it."""
        limits = Limits(max(CHECK_SECONDS, self.seconds / 6), self.deadline, self.memory)
        if version not in self.started:
            self.started[version] = self._start(version)
        process = self.started.pop(version)
        with contextlib.closing(process):
            process.let_go({"avoid": self.avoid, "required": self.required})
            ended = process.watch(limits)
        if not ended.events and not ended.how.startswith("hung"):
            words = ended.stderr.splitlines()
            raise CannotRunError(f"{self.python} can't start: {words[-1] if words else '?'}")
        self._take(ended, pending)

    def close(self) -> None:
        """End those that nobody watches."""
        for process in self.started.values():
            process.close()

    def _request(self, entries: list[EntryPoint]) -> dict[str, Any]:
        """What the plugin's processes have to know."""
        plugin = self.plugin
        base = plugin.root.resolve()
        metadata = self.folder / "metadata"
        _write_metadata(plugin, entries, metadata)
        tops = list(dict.fromkeys(entry.module.partition(".")[0] for entry in entries))
        engines = [entry.name for entry in entries if entry.group == host.GROUP_ENGINES]
        project = re.sub(r"\W", "_", plugin.metadata.name or tops[0])
        device = plugin.settings.get("device")
        return {
            "project": str(base),
            "path": [str(metadata), *{str(base / plugin.bases.get(top, "")) for top in tops}],
            "standins": stand_ins(),
            "entry_points": [{"group": e.group, "name": e.name, "value": e.value} for e in entries],
            "packages": list(dict.fromkeys([*tops, project, *engines[:1]])),
            "model_ids": sorted(host.MODEL_IDS),
            "seconds": ANSWER_SECONDS,
            "device": device if isinstance(device, str) else "",
        }

    def _not_run(self, names: list[str], why: str, state: str = NOT_RUN) -> None:
        results = [Result(self.checks[name], state, why=why, good=0) for name in names]
        self.report.results += results

    def _take(self, ended: Ended, pending: list[str]) -> None:
        """Keep the results of the checks that ended; pending: what is still to be run."""
        faults: dict[str, list[Fault]] = {}
        check, step, share = "", "", (1, 1)
        for event in ended.events:
            if "missing" in event:
                self._missing(event["missing"], event.get("message", ""))
            if "host" in event and check:
                self.report.hosts.setdefault(self.checks[check].host, event["host"])
            if "begin" in event:
                check, step, share = event["begin"], "", (1, 1)
            step = event.get("step", step)
            if "check" in event and "message" in event:
                place = Place(self._inside(event.get("path", "")), event.get("line", 0))
                fault = Fault(place, *(event.get(key, "") for key in ("message", "cause", "trace")))
                faults.setdefault(event["check"], []).append(fault)
            if "good" in event:
                share = event["good"], event.get("of", 1)
            if (name := event.get("end")) in pending:
                pending.remove(name)
                printing = [name] if event.get("prints") else []
                self.printing += printing
                if name == "EX952" and ended.stdout:
                    message = f"the plugin writes to stdout: {ended.stdout.splitlines()[0][:80]!r}"
                    faults[name] = [Fault(Place(), message)]
                own = set(faults.get(name, []))
                self._keep(name, own, event.get("why", ""), event.get("state", ""), share)
        if not ended.how or check not in pending:
            self._not_run(pending, f"the process {ended.how or 'has ended'} between two checks")
            pending.clear()
            return
        pending.remove(check)
        fault = Fault(Place(), f"{step or 'the process'} {ended.how}")
        state = HUNG if ended.how.startswith("hung") else CRASHED
        self.report.results.append(Result(self.checks[check], state, [fault]))
        self.avoid[step] = ended.how

    def _keep(
        self, name: str, faults: set[Fault], why: str, end: str, share: tuple[int, int]
    ) -> None:
        """What breaks many checks is a fault of the first of them; the others could not be made."""
        causes = {fault.cause or fault.message for fault in faults}
        if faults and causes <= self.causes:
            faults, why = set(), min(faults).message
        self.causes |= causes
        other = end if end in {CANNOT, NOT_THERE} else NOT_RUN if why else PASSED
        state = FAILED if faults else other
        result = Result(self.checks[name], state, sorted(faults), why, of=share[1])
        result.good = share[0] if state == PASSED else 0
        if name == "EX952" and self.printing:
            result.alone = f"--select {name},{self.printing[0]}"
        self.report.results.append(result)

    def _inside(self, file: str) -> str:
        try:
            base = self.plugin.root.resolve()
            return Path(file).resolve().relative_to(base).as_posix() if file else ""
        except (OSError, ValueError):
            return ""

    def _missing(self, module: str, message: str) -> None:
        """A required library that this Python lacks is no fault of the plugin's."""
        top = module.partition(".")[0]
        if top == "exo":
            raise CannotRunError(
                f"{message}; the stand-in for exo has no more than an engine needs. Name a Python "
                f"that has exo with --python ({host.GET_EXO})"
            )
        for text in [*(text for text, *_ in self.plugin.metadata.requirements), *host.PINS]:
            if is_of(top, {project_of(text)}):
                raise CannotRunError(
                    f"{self.python} has no {top}, which the plugin needs: "
                    f"{shlex.join([self.python, '-m', 'pip', 'install', text])}, or name another "
                    "Python with --python"
                )


def _write_metadata(plugin: Plugin, entries: list[EntryPoint], folder: Path) -> None:
    """What an installation would leave for importlib.metadata."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", plugin.metadata.name or "plugin")
    info = folder / f"{name}-0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n"
    (info / "METADATA").write_text(text, encoding="utf-8")
    lines = [f"[{e.group}]\n{e.name} = {e.value}\n" for e in sorted(entries, key=str)]
    (info / "entry_points.txt").write_text("".join(lines), encoding="utf-8")
