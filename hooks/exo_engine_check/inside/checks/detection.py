"""EX5: the detectors, on this machine and on worse ones."""

import inspect
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from .. import faults
from ..core import Check, Report, describe, shorten

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
        pass  # a compiled one can't be asked
    return "is async" if inspect.iscoroutinefunction(detector) else ""


def _plain(detectors: dict[str, Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The detectors that EX501 has nothing against."""
    return ((name, each) for name, each in detectors.items() if not _uncallable(each))


def _ask(detector: Callable[[], Any]) -> tuple[Any, str, BaseException | None]:
    """Its answer, what is wrong with that, and its error; the thread may be left behind."""
    ends: list[tuple[Any, BaseException | None]] = []

    def ask() -> None:
        try:
            ends.append((detector(), None))
        except BaseException as error:
            ends.append((None, error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if not ends:
        return None, f"has not answered after {PATIENCE:g} s", None
    answer, error = ends[0]
    if error is not None:
        return None, f"fails: {describe(error)}", error
    named = answer is None or (isinstance(answer, str) and answer)
    return answer, "" if named else f"gives {shorten(answer)}, no name and not None", None


class EX502(Check):
    "The detector gives a name or None, at once, and twice the same"

    @staticmethod
    def check(detectors: dict[str, Any], report: Report) -> Iterator[Any]:
        """exo's type is `Optional[str]` (plugin_discovery.py:124). A bool says that there is a
        device and not which. Return the device's name, or None where there is none, and the same
        again: who asks twice must not see two machines. It is asked when a node starts, on every
        machine: read a file of the system; sleep, and ask the network, never."""
        for name, detector in _plain(detectors):
            started = time.perf_counter()
            with report.step(f"the detector {name}"):
                first, wrong, error = _ask(detector)
            took = time.perf_counter() - started
            if wrong or took > SECONDS:
                yield f"the detector {name} {wrong or f'takes {took:.1f} s'}", error
            elif first != (second := _ask(detector)[0]):
                yield f"the detector {name} gives {shorten(first)} and then {shorten(second)}"


class EX503(Check):
    "The detector catches its own errors, and waits for nobody"

    @staticmethod
    def check(detectors: dict[str, Any], report: Report) -> Iterator[Any]:
        """A detector runs on machines that lack the device, its drivers and its SDK, and exo hands
        it on as it is (plugin_discovery.py:138): an error there is an error of whoever asks. Catch
        what the call can raise, `OSError` for files and programs, `ValueError` for what a file
        holds, and `Exception` for an SDK, and return None. What an SDK gives need be no text. Give
        a program a `timeout` of a second."""
        for name, detector in _plain(detectors):
            _, wrong_anyway, _ = _ask(detector)  # EX502 says it
            for where, around in _machines(report).items():
                with report.step(f"the detector {name} where {where}"), around:
                    _, wrong, error = _ask(detector)
                if wrong and not (wrong_anyway and error is None):
                    yield f"the detector {name}, where {where}, {wrong}", error


def _machines(report: Report) -> dict[str, AbstractContextManager[None]]:
    root, known = report.root, {*sys.stdlib_module_names, __name__.partition(".")[0], "exo"}
    known |= set(report.request["required"])  # these are always there
    known |= {entry["value"].partition(".")[0] for entry in report.request["entry_points"]}

    def broken() -> Any:
        raise RuntimeError("the SDK has found no driver")

    return {
        "files and programs are missing": faults.refusing(root, FileNotFoundError),
        "files and programs are forbidden": faults.refusing(root, PermissionError),
        "files hold something else": faults.garbage(root),
        "programs hang": faults.hanging_programs(),
        "no SDK is installed": faults.sdks(known, None),
        "every SDK raises": faults.sdks(known, broken),
        "an SDK gives no text": faults.sdks(known, lambda: 1),
    }
