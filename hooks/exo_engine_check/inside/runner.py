"""Runs the checks that were asked for, one after the other, each with its fixtures."""

import asyncio
import contextlib
import gc
import inspect
import json
import os
import sys
from typing import Any

from . import fixtures, guards
from .checks import all_checks
from .core import BrokenError, Check, NotRunError, Report, describe
from .guards import silenced


class Runner:
    """Makes each fixture once; every check that needs a broken one says so."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.made: dict[str, Any] = {"report": report, "request": report.request}
        self.loop = asyncio.new_event_loop()

    def value(self, name: str) -> Any:
        if name not in self.made:
            make = getattr(fixtures, name)
            try:
                arguments = [self.value(other) for other in inspect.signature(make).parameters]
                self.made[name] = make(*arguments)
            except (NotRunError, BrokenError) as error:
                self.made[name] = error
        found = self.made[name]
        if isinstance(found, NotRunError | BrokenError):
            raise found
        return found

    def run(self, name: str, check: type[Check]) -> None:
        self.report.write(begin=name)
        state, why = "passed", ""
        faults: list[Any] = []
        try:
            parameters = inspect.signature(check.check).parameters
            found = check.check(*map(self.value, parameters))
            # What exo's node prints of errors is exo's.
            with silenced() if check.family == "exo-mends" else contextlib.nullcontext():
                self.loop.run_until_complete(_collect(found, faults))
        except NotRunError as error:
            state, why = "not run", str(error)
        except BrokenError as error:
            state, why = self._broken(name, error)
        except BaseException as error:
            state = "failed"
            self.report.fault(name, f"the check ends with {describe(error)}", error)
        for fault in faults:
            state = "failed"
            self.report.fault(name, fault, getattr(fault, "error", None))
        self.report.write(end=name, state=state, why=why)

    def _broken(self, name: str, error: BrokenError) -> tuple[str, str]:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            self.report.write(missing=cause.name, message=str(error))
        self.report.fault(name, str(error), cause)
        return "failed", ""


async def _collect(found: Any, faults: list[Any]) -> None:
    """Take what a check yields, so that its last words don't lose the first."""
    if hasattr(found, "__aiter__"):
        async for fault in found:
            faults.append(fault)
    else:
        faults.extend(found or ())


def main(pipe: int, asked: str) -> None:
    """Run what a file asks for, and end without waiting for threads of the plugin's."""
    with open(asked, encoding="utf-8") as file:
        request = json.load(file)
    os.set_inheritable(pipe, False)
    report = Report(pipe, request)
    guards.install(report)
    sys.path[:0] = request["path"]
    runner = Runner(report)
    asyncio.set_event_loop(runner.loop)
    checks = all_checks()
    for name in request["checks"]:
        runner.run(name, checks[name])
    gc.collect()
    sys.stdout.flush()
    report.write(done=True)
    os._exit(0)
