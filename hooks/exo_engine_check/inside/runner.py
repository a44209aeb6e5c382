"""Runs the checks that were asked for, one after the other, each with what its parameters name."""

import asyncio
import contextlib
import gc
import inspect
import json
import os
import sys
from typing import Any

from . import guards
from .checks import all_checks
from .core import BrokenError, CannotError, Check, NotRunError, Report, Share, describe, silenced
from .seen import Seen


async def _run(seen: Seen, name: str, check: type[Check]) -> None:
    """One check. It yields faults, a text or a text and the error that it is about, or a Share."""
    report, state, why = seen.report, "passed", ""

    def take(each: Any) -> None:
        nonlocal state
        if isinstance(each, Share):
            report.write(check=name, good=each.good, of=each.of)
            return
        state = "failed"
        report.fault(name, *(each if isinstance(each, tuple) else (each,)))

    report.write(begin=name)
    try:
        found = check.check(*[getattr(seen, p) for p in inspect.signature(check.check).parameters])
        if inspect.isasyncgen(found):
            async for each in found:
                take(each)
        elif inspect.iscoroutine(found):
            await found
        else:
            for each in found or ():
                take(each)
    except NotRunError as error:
        state, why = "not run", str(error)
    except CannotError as error:
        state, why = "can't", str(error)
    except BrokenError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            report.write(missing=cause.name, message=str(error))
        take((str(error), cause))
    except BaseException as error:
        take((f"the check ends with {describe(error)}", error))
    report.write(end=name, state=state, why=why)


def main(asked: str) -> None:
    """Run what a file asks for, and end without waiting for threads of the plugin's."""
    with open(asked, encoding="utf-8") as file:
        request: dict[str, Any] = json.load(file)
    report = Report(request)
    guards.install()
    sys.path[:0] = request["path"]
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    seen, checks = Seen(report), all_checks()
    for name in request["checks"]:
        # What exo's node prints of errors is exo's.
        with silenced() if name.startswith("EX9") else contextlib.nullcontext():
            loop.run_until_complete(_run(seen, name, checks[name]))
    gc.collect()
    sys.stdout.flush()
    report.write(done=True)
    os._exit(0)
