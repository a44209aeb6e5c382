"""What importing the plugin's modules costs, starts and leaves."""

import asyncio
import importlib
import logging
import os
import signal
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

from .audit import PROGRAMS, auditing, replaced
from .check import BrokenError, NotRunError
from .events import Events
from .patience import clock

_FROZEN = ("<frozen os>", "<frozen _collections_abc>")


@dataclass
class Imported:
    """What importing the modules did: those of discovery first, then the engine's."""

    errors: dict[str, BrokenError | NotRunError] = field(default_factory=dict)  # by module
    seconds: float = 0.0  # for discovery's modules
    brought: set[str] = field(default_factory=set)  # top modules that discovery brought
    left: list[str] = field(default_factory=list)
    before: set[Any] = field(default_factory=set)  # metrics that were there before the engine
    exo: Any = None


def _traces() -> dict[Any, str]:
    """What a process has, with what it means when it is new."""
    traces: dict[Any, str] = {t: f"starts the thread {t.name}" for t in threading.enumerate()}
    for number in signal.Signals:
        traces[number, signal.getsignal(number)] = f"takes the signal {number.name}"
    traces[os.getcwd()] = "changes the working folder"
    root = logging.getLogger()
    traces["logging", len(root.handlers), root.level] = "configures logging for the whole process"
    try:
        for name in os.listdir("/proc/self/fd"):
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith("socket:"):
                traces[target] = "opens a socket"
    except OSError:
        pass  # the listing's own descriptor is gone, or the system tells nothing
    return traces


def _caller() -> str:
    """The file that has set an environment variable: the first that is not Python's own."""
    frame = sys._getframe(3)  # behind the hooks
    while frame.f_back and frame.f_code.co_filename in {os.__file__, *_FROZEN}:
        frame = frame.f_back
    return os.path.realpath(frame.f_code.co_filename)


def observe(events: Events, imported: Imported, module: str) -> None:
    """Import one module; note what it leaves."""
    before, made = _traces(), set[str]()
    new_loop = asyncio.new_event_loop

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event in PROGRAMS or event == "os.fork":
            made.add("starts a process")
        elif event == "os.putenv" and _caller().startswith(events.root):
            made.add(f"sets the environment variable {os.fsdecode(arguments[0])}")

    def counted() -> Any:
        made.add("makes an event loop")
        return new_loop()

    try:
        with (
            replaced(asyncio, "new_event_loop", counted),
            auditing(note),
            events.step(f"importing {module}"),
        ):
            importlib.import_module(module)
    except (BrokenError, NotRunError) as error:
        imported.errors[module] = error
    made |= {text for trace, text in _traces().items() if trace not in before}
    imported.left += [f"importing {module} {text}" for text in sorted(made)]


def discovery(events: Events, imported: Imported, modules: list[str]) -> None:
    """Import what exo's discovery imports, before anything of exo is there."""
    before, started = set(sys.modules), clock()
    for module in modules:
        observe(events, imported, module)
    imported.seconds = clock() - started
    imported.brought = {name.partition(".")[0] for name in set(sys.modules) - before}


def collectors() -> set[Any]:
    """The metrics of the default registry, but those of exo's own modules."""
    client = sys.modules.get("prometheus_client")
    exos = [vars(module) for name, module in sys.modules.items() if name.startswith("exo.")]
    own = {id(value) for names in exos for value in names.values()}
    registered = client.REGISTRY._collector_to_names if client else ()
    return {collector for collector in registered if id(collector) not in own}
