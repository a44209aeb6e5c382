"""--import: the plugin in a process of its own, bounded in time and killed whole at the end."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import IO, Any

from . import host
from .checks.packaging import project_of
from .files import CannotRunError, reason
from .findings import Finding, Place
from .plugin import Plugin

KEPT_BYTES = 10_000
_PROBE = Path(__file__).with_name("probe.py")
Seen = dict[str, list[Finding]]


def stand_in() -> Path:
    """The folder of the stand-in host: in the wheel beside this file, else in the template."""
    shipped = Path(__file__).with_name("standin")
    return shipped if shipped.is_dir() else _PROBE.parents[2] / "template" / "tests" / "standin"


def load(plugin: Plugin, path: Path, python: str, seconds: float) -> tuple[Seen, list[str]]:
    """Load and drive a plugin; returns the findings by check, and notes. Raises CannotRunError."""
    entries = [e for e in plugin.entry_points if e.group in host.GROUPS and e.is_well_formed]
    entries = [e for e in entries if e.module in plugin.package.modules]
    if not any(e.group == host.GROUP_ENGINES for e in entries):
        if plugin.unseen:
            raise CannotRunError(f"--import: {plugin.unseen[0]}; build the wheel and check that")
        return {}, ["--import: there is no engine to load; see the other findings"]
    with tempfile.TemporaryDirectory(prefix="exo-engine-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        base = _unpacked(path, folder / "wheel") if plugin.is_wheel else path.resolve()
        top = entries[0].module.partition(".")[0]
        source = base / plugin.bases.get(top, "")
        _write_metadata(plugin, folder / "metadata")
        home = folder / "exo-home"
        tiny = plugin.settings.get("tiny-model")
        request = {
            "package": top,
            "folder": str(base),
            "path": [str(folder / "metadata"), str(source)],
            "standin": str(stand_in()),
            "entry_points": [
                {"group": e.group, "name": e.name, "value": f"{e.module}:{e.attribute}"}
                for e in entries
            ],
            "calls": {name: count for name, (count, *_) in host.CALLS.items()},
            "tiny_model": tiny if isinstance(tiny, str) else None,
            "model_folder": str(home / "downloads" / "exo-engine-check--tiny"),
        }
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        ended = _run(python, folder, home, seconds)
        events = _events(folder / "events.jsonl")
        return _judge(plugin, base, python, seconds, ended, events, bool(request["tiny_model"]))


def _unpacked(wheel: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            if sum(info.file_size for info in archive.infolist()) > 2_000_000_000:
                raise CannotRunError(f"{wheel} is too large to be unpacked")
            archive.extractall(folder)
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise CannotRunError(f"{wheel} can't be unpacked: {error}") from error
    return folder


def _write_metadata(plugin: Plugin, folder: Path) -> None:
    """What an installation would leave for importlib.metadata."""
    name = plugin.metadata.name or "plugin"
    info = folder / f"{re.sub(r'[^A-Za-z0-9]+', '_', name)}-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n", encoding="utf-8"
    )
    lines: list[str] = []
    for group in dict.fromkeys(entry.group for entry in plugin.entry_points):
        lines.append(f"[{group}]")
        lines += [
            f"{e.name} = {e.module}:{e.attribute}"
            for e in plugin.in_group(group)
            if e.is_well_formed
        ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


class _Ended:
    """How the process ended."""

    def __init__(self, code: int | None, stdout: bytes, stderr: bytes) -> None:
        self.code = code  # None: the time was over
        self.stdout, self.stderr = stdout, stderr

    def last_words(self) -> str:
        lines = self.stderr.decode("utf-8", "replace").strip().splitlines()
        return f": {lines[-1].strip()}" if lines else ""


def _run(python: str, folder: Path, home: Path, seconds: float) -> _Ended:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EXO_", "DEBUG"))}
    environment = kept | {
        "EXO_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONSAFEPATH": "1",
    }
    command = [python, str(_PROBE), str(folder / "request.json"), str(folder / "events.jsonl")]
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise CannotRunError(f"--python {python}: {reason(error)}") from error
    heads: list[bytearray] = [bytearray(), bytearray()]
    readers = [
        threading.Thread(target=_drain, args=(pipe, head), daemon=True)
        for pipe, head in zip((process.stdout, process.stderr), heads, strict=True)
    ]
    for reader in readers:
        reader.start()
    code: int | None = None
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _kill(process)
    for reader in readers:
        reader.join(1)
    return _Ended(code, bytes(heads[0]), bytes(heads[1]))


def _drain(pipe: IO[bytes] | None, head: bytearray) -> None:
    """Read all, so that nobody waits for it, and keep the beginning."""
    while pipe is not None and (data := pipe.read1(65536)):  # type: ignore[attr-defined]  # a pipe is a BufferedReader
        head += data[: max(0, KEPT_BYTES - len(head))]


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it started, except what has left its session."""
    try:
        if sys.platform != "win32":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except (ProcessLookupError, PermissionError):
        pass
    process.wait(5)


def _events(path: Path) -> list[dict[str, Any]]:
    """What the probe wrote; a line that was cut off is left out."""
    found = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            found.append(event)
    return found


def _judge(
    plugin: Plugin,
    base: Path,
    python: str,
    seconds: float,
    ended: _Ended,
    events: list[dict[str, Any]],
    has_tiny: bool,
) -> tuple[Seen, list[str]]:
    seen: Seen = {}
    if not events:
        raise CannotRunError(f"--python {python} could not start{ended.last_words()}")
    for event in events:
        if "missing" in event:
            _missing(plugin, python, event)
        if "check" in event:
            place = Place(_inside(base, str(event["path"])), int(event["line"]))
            seen.setdefault(str(event["check"]), []).append(Finding(place, str(event["message"])))
    if not any("done" in event for event in events):
        step = next((e["step"] for e in reversed(events) if "step" in e), "the start")
        if ended.code is None:
            message = f"after {seconds:g} s the plugin had not ended: {step}"
            seen.setdefault("EX902", []).append(Finding(Place(), message))
        else:
            message = f"the process ended with {_code(ended.code)}: {step}"
            seen.setdefault("EX901", []).append(Finding(Place(), message))
    if ended.stdout.strip():
        line = ended.stdout.decode("utf-8", "replace").strip().splitlines()[0]
        message = f"the plugin writes to stdout: {line[:80]!r}"
        seen.setdefault("EX903", []).append(Finding(Place(), message))
    return seen, _notes(events, has_tiny)


def _code(code: int) -> str:
    if code >= 0:
        return f"code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _inside(base: Path, file: str) -> str:
    try:
        return Path(file).resolve().relative_to(base.resolve()).as_posix() if file else ""
    except (OSError, ValueError):
        return ""


def _missing(plugin: Plugin, python: str, event: dict[str, Any]) -> None:
    """A required library that this Python lacks is no fault of the plugin's."""
    name = str(event["missing"])
    top = name.partition(".")[0]
    if top == "exo":
        raise CannotRunError(
            f"{event['message']}; the stand-in for exo has no more than an engine needs. Name a "
            f"Python that has exo with --python ({host.GET_EXO})"
        )
    projects = {top.replace("_", "-").lower()}
    projects |= {project_of(found) for found in packages_distributions().get(top, [])}
    required = {project_of(text) for text, extra, _ in plugin.metadata.requirements if not extra}
    if projects & (required | {"numpy"}):
        raise CannotRunError(
            f"{python} has no {top}, which the plugin requires: install the plugin there, or name "
            "another Python with --python"
        )


def _notes(events: list[dict[str, Any]], has_tiny: bool) -> list[str]:
    facts: dict[str, Any] = {}
    for event in events:
        facts |= event
    hosts = {"real": "a real exo", "stand-in": "the stand-in for exo"}
    notes = [f"--import: loaded on {hosts.get(str(facts.get('host')), 'no exo')}"]
    if not has_tiny:
        notes.append("--import: not driven, as [tool.exo-engine] names no tiny-model")
    elif facts.get("driven"):
        notes.append(f"--import: answered with {facts['driven']} tokens, on one node and on two")
    return notes
