"""Runs cases in a process that may crash or hang, and starts another one then."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from .cases import Case
from .device import SOURCE
from .measure import USES, Verdict

IMPORT_SECONDS = 120.0  # until the operations, and the runtime that they import, are there
FAULTS = ("wrong", "raised", "crashed", "hung")
CRASHES = 2  # of one operation: its other cases are not run


class BoardError(RuntimeError):
    """No case can be run; the text says why."""


@dataclass(frozen=True)
class Result:
    """A case, and what became of it."""

    case: Case
    verdict: Verdict


class Child:
    """The process that runs the cases."""

    def __init__(self, process: asyncio.subprocess.Process, log: IO[bytes]) -> None:
        self._process, self._log = process, log
        self.own: dict[str, str] = {}  # whose an operation is

    @classmethod
    async def start(cls) -> "Child":
        """A process that has the device's operations. Raises BoardError where that fails."""
        log = tempfile.TemporaryFile()  # noqa: SIM115 - end() closes it
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        # The reference's products: threads wait for each other on a machine that is busy.
        environment.setdefault("OPENBLAS_NUM_THREADS", "1")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", f"{__package__}.child"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=environment,
        )
        child = cls(process, log)
        try:
            hello = await child._read(IMPORT_SECONDS)
        except TimeoutError:
            await child.end()
            raise BoardError(f"{SOURCE} takes over {IMPORT_SECONDS:.0f} s to import") from None
        if hello is None or "why" in hello:
            why = hello["why"] if hello else f"importing it {await child.ended()}"
            await child.end()
            raise BoardError(f"{SOURCE} can't be used: {why}")
        child.own = dict.fromkeys(hello["own"], hello["whose"])
        return child

    async def run(self, case: Case, timed: bool, limit: float) -> Verdict:
        """What becomes of a case. limit: seconds."""
        stdin = self._process.stdin
        assert stdin is not None
        with suppress(ConnectionError):
            stdin.write(json.dumps([str(case), timed]).encode() + b"\n")
            await stdin.drain()
        try:
            reply = await self._read(limit)
        except TimeoutError:
            await self.end()
            return Verdict("hung", f"no answer within {limit:g} s")
        return Verdict(**reply) if reply else Verdict("crashed", await self.ended())

    async def _read(self, limit: float) -> dict[str, Any] | None:
        stdout = self._process.stdout
        assert stdout is not None
        line = await asyncio.wait_for(stdout.readline(), limit)
        return json.loads(line) if line.endswith(b"\n") else None

    @property
    def alive(self) -> bool:
        """Whether it can run another case."""
        return self._process.returncode is None

    async def ended(self) -> str:
        """How the process ended, and where it was, as its faulthandler says."""
        code = await self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").splitlines()
        frames = [line.strip() for line in lines if line.startswith("  File ")]
        own = [frame for frame in frames if f"{os.sep}operations.py" in frame]
        at = next(iter(own or frames), "")
        how = f"ended by signal {-code}" if code < 0 else f"ended with {code}"
        return f"{how} ({at})" if at else how

    async def end(self) -> None:
        """Kill it."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._log.close()


async def run(
    cases: Sequence[Case],
    limit: float,
    timed: bool = True,
    started: Callable[[dict[str, str]], object] = lambda own: None,
) -> AsyncIterator[Result]:
    """Run the cases, one after the other. Raises BoardError where none can be.

    limit: seconds that a case may take. started: is told whose the device's operations are.
    """
    child = await Child.start()
    started(own := child.own)
    faults: dict[str, list[str]] = {}
    try:
        for case in cases:
            name = case.operation
            if why := _skipped(name, own, faults):
                yield Result(case, Verdict("skipped", why))
                continue
            if not child.alive:
                await child.end()
                child = await Child.start()
            verdict = await child.run(case, timed, limit)
            if verdict.state in FAULTS:
                faults.setdefault(name, []).append(verdict.state)
            yield Result(case, verdict)
    finally:
        await child.end()


def _skipped(name: str, own: Mapping[str, str], faults: dict[str, list[str]]) -> str:
    """Why an operation's next case isn't run, or nothing."""
    if "hung" in faults.get(name, ()):
        return "an earlier case hung"
    if faults.get(name, ()).count("crashed") >= CRASHES:
        return f"{CRASHES} earlier cases crashed"
    if name in own:
        return ""
    uses = [used for used in USES.get(name, ()) if used in faults]
    return f"it uses {', '.join(uses)}" if uses else ""
