"""What importing the plugin's modules costs, starts and leaves."""

import asyncio
import importlib
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from .core import BrokenError, Fault, NotRunError, Report
from .guards import auditing


@dataclass
class Imported:
    """What was seen while modules were imported: of discovery first, then of the engine."""

    errors: dict[str, BrokenError | NotRunError] = field(default_factory=dict)  # by module
    seconds: float = 0.0  # of discovery's modules
    brought: set[str] = field(default_factory=set)  # top modules that discovery brought
    left: list[Fault] = field(default_factory=list)
    collectors: set[Any] = field(default_factory=set)  # metrics that were there before the engine
    exo: Any = None


class _Traces:
    """What a process has, to be compared later."""

    def __init__(self) -> None:
        self.threads = set(threading.enumerate())
        self.sockets = _sockets()
        self.signals = {n: signal.getsignal(n) for n in signal.Signals}
        self.folder = os.getcwd()
        self.programs: list[str] = []
        self.loops: list[object] = []

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in {"subprocess.Popen", "os.posix_spawn", "os.system", "os.fork"}:
            self.programs.append(event)

    def left(self, module: str) -> list[Fault]:
        """A sentence for each thing that is new."""
        found = []
        for thread in set(threading.enumerate()) - self.threads:
            found.append(f"importing {module} starts the thread {thread.name}")
        if self.programs:
            found.append(f"importing {module} starts a process")
        if len(_sockets()) > len(self.sockets):
            found.append(f"importing {module} opens a socket")
        for number, handler in self.signals.items():
            if signal.getsignal(number) is not handler:
                found.append(f"importing {module} takes the signal {number.name}")
        if os.getcwd() != self.folder:
            found.append(f"importing {module} changes the working folder")
        return [Fault(text) for text in sorted(found)]


def _sockets() -> set[str]:
    """The sockets that this process has open, where the system tells."""
    found = set()
    try:
        for name in os.listdir("/proc/self/fd"):
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith("socket:"):
                found.add(target)
    except OSError:
        pass
    return found


def observe(report: Report, seen: Imported, module: str) -> None:
    """Import one module; note what it leaves."""
    before = _Traces()
    loops = asyncio.new_event_loop
    made: list[str] = []

    def counted() -> Any:
        made.append(module)
        return loops()

    asyncio.new_event_loop = counted
    try:
        with auditing(before.audit), report.step(f"importing {module}"):
            importlib.import_module(module)
    except (BrokenError, NotRunError) as error:
        seen.errors[module] = error
    finally:
        asyncio.new_event_loop = loops
    seen.left += before.left(module)
    if made:
        seen.left.append(Fault(f"importing {module} makes an event loop"))


def discovery(report: Report, seen: Imported, modules: list[str]) -> None:
    """Import what exo's discovery imports, before anything of exo is there."""
    before = set(sys.modules)
    started = time.perf_counter()
    for module in modules:
        observe(report, seen, module)
    seen.seconds = time.perf_counter() - started
    seen.brought = {name.partition(".")[0] for name in set(sys.modules) - before}


def collectors() -> set[Any]:
    """The metrics of the default registry, but those of exo's own modules."""
    client = sys.modules.get("prometheus_client")
    exos = [vars(module) for name, module in sys.modules.items() if name.startswith("exo.")]
    own = {id(value) for names in exos for value in names.values()}
    found = client.REGISTRY._collector_to_names if client else ()
    return {collector for collector in found if id(collector) not in own}
