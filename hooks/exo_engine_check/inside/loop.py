"""Runs the checks of a request, one after the other, each with what its parameters name."""

import asyncio
import contextlib
import inspect
import json
import os
import sys
from typing import Any

from . import audit
from .check import BrokenError, CannotError, Check, NotRunError, NotThereError, Share
from .checks import all_checks
from .confine import confine
from .events import Events, describe, silenced
from .fixtures import Fixtures


async def _run(fixtures: Fixtures, check: type[Check]) -> None:
    """One check; whatever it ends with becomes events."""
    events, name, state, why = fixtures.events, check.__name__, "passed", ""
    size = os.fstat(1).st_size

    def take(result: Any) -> None:
        nonlocal state
        if isinstance(result, Share):
            events.write(check=name, good=result.good, of=result.of)
            return
        state = "failed"
        events.fault(name, *(result if isinstance(result, tuple) else (result,)))

    events.write(begin=name)
    try:
        parameters = inspect.signature(check.check).parameters
        results = check.check(*[getattr(fixtures, parameter) for parameter in parameters])
        if inspect.isasyncgen(results):
            async for result in results:
                take(result)
        elif inspect.iscoroutine(results):
            await results
        else:
            for result in results or ():
                take(result)
    except NotRunError as error:
        state, why = "not run", str(error)
    except NotThereError as error:
        state, why = "not there", str(error)
    except CannotError as error:
        state, why = "can't", str(error)
    except BrokenError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            events.write(missing=cause.name, message=str(error))
        take((str(error), cause))
    except BaseException as error:
        take((f"the check ends with {describe(error)}", error))
    sys.stdout.flush()
    events.write(end=name, state=state, why=why, prints=os.fstat(1).st_size > size)


def main() -> None:
    """Run the checks of a request on stdin, and end without waiting for threads of the plugin's."""
    request: dict[str, Any] = json.load(sys.stdin)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    confine(request["parent"])
    events = Events(request)
    audit.install()
    sys.path[:0] = request["path"]
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    fixtures, checks = Fixtures(events), all_checks()
    for name in request["checks"]:
        # What exo's node prints of errors is exo's.
        with silenced() if name.startswith("EX9") else contextlib.nullcontext():
            loop.run_until_complete(_run(fixtures, checks[name]))
    events.write(done=True)
    os._exit(0)
