"""EX5: the detectors, on this machine and on worse ones."""

import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from .. import machines
from ..audit import auditing
from ..check import Check
from ..events import Events, describe, shorten
from ..patience import clock

SECONDS = 1.0
PATIENCE = 2.5  # for a detector that gives a program a second or two


class EX501(Check):
    "The detector is called without arguments"

    @staticmethod
    def check(detectors: dict[str, Any]) -> Iterator[str]:
        """exo's type of a detector is `Callable[[], Optional[str]]` (plugin_discovery.py:124): a
        required parameter is a TypeError, and a coroutine is no answer. Write a plain function
        whose parameters have defaults."""
        for name, detector in detectors.items():
            if wrong := _uncallable(detector):
                yield f"the detector {name} {wrong}"


def _uncallable(detector: Any) -> str:
    if not callable(detector):
        return f"can't be called: it is {shorten(detector)}"
    try:
        inspect.signature(detector).bind()
    except TypeError as error:
        return f"wants arguments: {error}"
    except ValueError:
        pass  # a compiled one has no signature
    return "is async" if inspect.iscoroutinefunction(detector) else ""


def _plain(detectors: dict[str, Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The detectors that EX501 has nothing against."""
    return ((name, each) for name, each in detectors.items() if not _uncallable(each))


def _call(detector: Callable[[], Any]) -> tuple[Any, str, BaseException | None, float]:
    """Its answer, what is wrong with that, its error and seconds; the thread may be left behind."""
    ends: list[tuple[Any, BaseException | None, float]] = []

    def call() -> None:
        start = clock()
        try:
            ends.append((detector(), None, clock() - start))
        except BaseException as error:
            ends.append((None, error, clock() - start))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if not ends:
        return None, f"has not answered after {PATIENCE:g} s", None, PATIENCE
    answer, error, seconds = ends[0]
    if error is not None:
        return None, f"fails: {describe(error)}", error, seconds
    is_name = answer is None or (isinstance(answer, str) and answer)
    wrong = "" if is_name else f"gives {shorten(answer)}, no name and not None"
    return answer, wrong, None, seconds


class EX502(Check):
    "The detector gives a name or None, at once, and twice the same"

    @staticmethod
    def check(detectors: dict[str, Any], events: Events) -> Iterator[Any]:
        """exo's type is `Optional[str]` (plugin_discovery.py:124). A bool says that there is a
        device and not which. Return the device's name, or None where there is none, and the same
        again: who calls twice must not see two machines. It is called when a node starts, on every
        machine: answer within a second, and ask nobody but this machine unless a setting names
        somebody else."""
        for name, detector in _plain(detectors):
            peers = list[str]()
            with events.step(f"the detector {name}"), auditing(_noting(peers)):
                first, wrong, error, took = _call(detector)
            for peer in dict.fromkeys(peers):
                yield f"the detector {name} asks {peer}, which no setting names"
            if wrong or took > SECONDS:
                yield f"the detector {name} {wrong or f'takes {took:.1f} s'}", error
            elif first != (second := _call(detector)[0]):
                yield f"the detector {name} gives {shorten(first)} and then {shorten(second)}"


def _noting(peers: list[str]) -> Callable[[str, tuple[Any, ...]], None]:
    """A hook that notes who is asked beyond this machine."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo":
            peer = arguments[0]
        elif event == "socket.connect" and isinstance(arguments[1], tuple):
            peer = arguments[1][0]
        else:
            return
        peer = peer.decode("ascii", "replace") if isinstance(peer, bytes) else str(peer or "")
        if peer and not peer.startswith(("127.", "::1", "localhost", "0.0.0.0")):
            peers.append(peer)

    return hook


class EX503(Check):
    "The detector catches its own errors, and waits for nobody"

    @staticmethod
    def check(detectors: dict[str, Any], events: Events) -> Iterator[Any]:
        """A detector runs on machines that lack the device, its drivers and its SDK, and exo hands
        it on as it is (plugin_discovery.py:138): an error there is an error of whoever calls it.
        Catch what the call can raise, `OSError` for files and programs, `ValueError` for what a
        file holds, and `Exception` for an SDK, and return None. What an SDK gives need be no text.
        Give a program a `timeout` of a second. Where nothing is there, say so: a detector that
        looks at nothing finds its device on every machine."""
        events.take_turn()
        for name, detector in _plain(detectors):
            here, wrong_anyway, *_ = _call(detector)  # EX502 says it
            for where, machine in MACHINES.items():
                around = machine(events.root, _known(events.request))
                with events.step(f"the detector {name} where {where}"), around:
                    answer, wrong, error, _ = _call(detector)
                if wrong and not (wrong_anyway and error is None):
                    yield f"the detector {name}, where {where}, {wrong}", error
                elif machine is machines.nothing and not wrong and answer and answer == here:
                    yield f"the detector {name}, where {where}, gives {shorten(answer)} as here"


MACHINES = {
    "files, programs and SDKs are missing": machines.nothing,
    "files are forbidden, programs hang and SDKs raise": machines.broken,
    "files and SDKs give something else": machines.lying,
}


def _known(request: dict[str, Any]) -> set[str]:
    """The modules that are there on every machine: Python's, the plugin's and what it requires."""
    own = {entry["value"].partition(".")[0] for entry in request["entry_points"]}
    checker = __name__.partition(".")[0]
    return {*sys.stdlib_module_names, checker, "exo", *request["required"]} | own
