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
from ..guards import auditing

SECONDS = 1.0
PATIENCE = 2.5  # for a detector that gives a program a second or two


class _Asked:
    """One answer of a detector, in a thread that may be left behind."""

    def __init__(self, detector: Callable[[], Any]) -> None:
        self.answer: Any = None
        self.error: BaseException | None = None
        started = time.perf_counter()
        thread = threading.Thread(target=self._ask, args=(detector,), daemon=True)
        thread.start()
        thread.join(PATIENCE)
        self.hangs, self.seconds = thread.is_alive(), time.perf_counter() - started

    def _ask(self, detector: Callable[[], Any]) -> None:
        try:
            self.answer = detector()
        except BaseException as error:
            self.error = error

    def wrong(self) -> str:
        """What is wrong with the answer, if anything is."""
        if self.hangs:
            return f"has not answered after {PATIENCE:g} s"
        if self.error is not None:
            return f"fails: {describe(self.error)}"
        if self.answer is None or (isinstance(self.answer, str) and self.answer):
            return ""
        return f"gives {shorten(self.answer)}, no name and not None"


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


class EX502(Check):
    "The detector gives a name or None, and twice the same"

    @staticmethod
    def check(detectors: dict[str, Any], report: Report) -> Iterator[Any]:
        """exo's type is `Optional[str]` (plugin_discovery.py:124). A bool says that there is a
        device and not which. Return the device's name, or None where there is none, and the same
        again: who asks twice must not see two machines."""
        for name, detector in _plain(detectors):
            with report.step(f"the detector {name}"):
                first, second = _Asked(detector), _Asked(detector)
            if wrong := first.wrong() or second.wrong():
                yield f"the detector {name} {wrong}", first.error
            elif first.answer != second.answer:
                both = f"{shorten(first.answer)} and then {shorten(second.answer)}"
                yield f"the detector {name} gives {both}"


class EX503(Check):
    "The detector catches its own errors"

    @staticmethod
    def check(detectors: dict[str, Any], report: Report) -> Iterator[Any]:
        """A detector runs on machines that lack the device, its drivers and its SDK, and exo hands
        it on as it is (plugin_discovery.py:138): an error there is an error of whoever asks. Catch
        what the call can raise, `OSError` for files and programs, `ValueError` for what a file
        holds, and `Exception` for an SDK, and return None. What an SDK gives need be no text."""
        for name, detector in _plain(detectors):
            wrong_anyway = _Asked(detector).wrong()  # EX502 says it
            for where, around in _machines(report).items():
                with report.step(f"the detector {name} where {where}"), around:
                    asked = _Asked(detector)
                wrong = asked.wrong()
                if wrong and not (wrong_anyway and asked.error is None):
                    yield f"the detector {name}, where {where}, {wrong}", asked.error


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
        "no SDK is installed": faults.sdks(known, None),
        "every SDK raises": faults.sdks(known, broken),
        "an SDK gives no text": faults.sdks(known, lambda: 1),
    }


class EX504(Check):
    "The detector answers at once"

    @staticmethod
    def check(detectors: dict[str, Any], report: Report) -> Iterator[str]:
        """A detector is asked when a node starts, on every machine (plugin_discovery.py:124). One
        that sleeps, asks the network or waits for a program without a limit holds that up. Read a
        file of the system, or give the program a `timeout` of a second."""
        for name, detector in _plain(detectors):
            what = f"the detector {name}"
            started: list[str] = []

            def note(event: str, _: Any, started: list[str] = started) -> None:
                if event in {"subprocess.Popen", "os.posix_spawn"}:
                    started.append(event)

            with report.step(what), auditing(note):
                asked = _Asked(detector)
            if asked.hangs or asked.seconds > SECONDS:
                yield f"{what} takes {asked.seconds:.1f} s"
            elif started:
                with report.step(f"{what} where programs hang"), faults.hanging_programs():
                    asked = _Asked(detector)
                if asked.hangs:
                    yield f"{what} waits for a program without a limit"
