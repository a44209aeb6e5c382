"""A backend over librkllmrt.so in this process: ids in, ids out, one answer at a time."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from ..cards import Model
from ..contract import Piece, Request, Sampling
from ..engine.thread import in_thread
from ..server.address import clean
from ..server.models import listed
from ..text.tokenizer import Tokenizer
from .abi import ERROR, FINISH
from .board import driver, find_library, find_models, refuse_mismatch
from .generated import Generated
from .runtime import Library, Run, RuntimeLibraryError, Start
from .settings import Settings

END_SECONDS = 0.1  # for a run that has given its last token to return
LOOK_SECONDS = 0.25  # how often one that waits for its turn sees whether there will be one
NEVER_RUN = (
    "never run on an NPU: please run `doctor`, `models` and `generate Hello` on yours, and report "
    "what they print"
)
_log = logging.getLogger(__name__)
Event = tuple[bytes, int | None, int]


@dataclass(eq=False)
class Running:
    """One run of the library's, and the answer that is made of it; done: what rkllm_run gave."""

    answer: Generated | None = None
    events: "asyncio.Queue[Event | None]" = field(default_factory=asyncio.Queue)
    done: "asyncio.Future[int] | None" = None
    failed: bool = False

    def begin(self, library: Library, run: Run) -> None:
        """Let the library work, on a thread of its own."""
        loop = asyncio.get_running_loop()

        def came(text: bytes, token: int | None, state: int) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self.events.put_nowait, (text, token, state))

        self.done = asyncio.ensure_future(in_thread(partial(library.run, run, came)))
        self.done.add_done_callback(lambda _: self.events.put_nowait(None))


class InProcess:
    """An AnswerBackend (kit/contract.py) over the library. choose: which file a model is."""

    _hanging: ClassVar[str] = ""  # a load that hangs is the process's: another would hang beside it

    def __init__(
        self,
        settings: Callable[[], Settings],
        choose: Callable[[Model, list[str], Settings], str],
    ) -> None:
        self._settings, self._choose = settings, choose
        self._library: Library | None = None
        self._tokenizer: Tokenizer | None = None
        self._started = Sampling()
        self._in_cache: tuple[int, ...] = ()  # the ids that the KV cache has
        self._turn = asyncio.Lock()
        self._ending: set[asyncio.Task[None]] = set()
        self._stuck = ""
        self._warned = set[str]()

    async def load(self, model: Model, tokenizer: Tokenizer) -> None:
        """Load the model's file. Raises RuntimeLibraryError and ServerError."""
        await self.close()
        if stuck := self._stuck or InProcess._hanging:
            raise RuntimeLibraryError(stuck)
        settings = self._settings()
        library = await in_thread(partial(open_library, settings))
        models = await in_thread(partial(find_models, settings.models))
        if not models:
            raise RuntimeLibraryError("there is no .rkllm file; RKLLM_MODELS says where they are")
        path = models[self._choose(model, list(models), settings)]
        await in_thread(partial(refuse_mismatch, path, library.version))
        self._started = Sampling(temperature=settings.temperature)
        start = Start(path, settings.context, self._started, settings.cpus)
        _log.info("loading %s by the runtime %s", path.name, library.version or library.abi.name)
        await self._start(library, start, settings.load_seconds)
        self._library, self._tokenizer, self._in_cache = library, tokenizer, ()

    async def _start(self, library: Library, start: Start, seconds: float) -> None:
        """Load, but wait no longer than this: a load that hangs is nobody's but its thread's."""
        loading = asyncio.ensure_future(in_thread(partial(library.start, start)))
        done, _ = await asyncio.wait([loading], timeout=seconds)
        if not done:
            InProcess._hanging = (
                f"the runtime hangs in loading {start.model.name} for more than {seconds:.0f} s: "
                "start this process anew; RKLLM_LOAD_SECONDS waits longer"
            )
            loading.add_done_callback(lambda late: self._late(library, late))
            raise RuntimeLibraryError(InProcess._hanging)
        loading.result()

    def _late(self, library: Library, loading: "asyncio.Future[None]") -> None:
        """A load came back after all: the memory is given back, and another may be tried."""
        InProcess._hanging = ""
        if loading.exception() is None:
            library.stop()

    async def answer(self, request: Request) -> AsyncGenerator[Piece, None]:
        """One answer. Raises RuntimeLibraryError or RequestError."""
        await self._my_turn()
        running = Running()
        try:
            library, tokenizer = self._library, self._tokenizer
            if library is None or tokenizer is None:
                raise RuntimeLibraryError("no model is loaded")
            answer = running.answer = Generated(request, tokenizer, library.context)
            self._warn_of(library, request.sampling)
            run = self._run(library, answer)
            running.begin(library, run)
            async for piece in self._pieces(running, answer):
                yield piece
        except RuntimeLibraryError:
            running.failed = True
            raise
        finally:
            ending = asyncio.create_task(self._end(running))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _my_turn(self) -> None:
        """Wait for the run before this one. Raises RuntimeLibraryError where it doesn't end."""
        while True:
            if self._stuck:
                raise RuntimeLibraryError(self._stuck)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._turn.acquire()
                return

    def _run(self, library: Library, answer: Generated) -> Run:
        """What the library is given: of a prompt that goes on where the cache ends, the rest."""
        ids, have = answer.prompt, self._in_cache
        keep = 0 < len(have) < len(ids) and ids[: len(have)] == have
        self._in_cache = ()  # until this one has ended
        answer.reused = len(have) if keep else 0
        rest = ids[answer.reused :]
        return Run(rest, answer.most, answer.request.sampling, keep)

    async def _pieces(self, running: Running, answer: Generated) -> AsyncGenerator[Piece, None]:
        seconds = self._settings().silence_seconds
        while not answer.finish:
            try:
                async with asyncio.timeout(seconds):
                    event = await running.events.get()
            except TimeoutError:
                raise RuntimeLibraryError(
                    f"the runtime was silent for {seconds:.0f} s; RKLLM_SILENCE_SECONDS waits "
                    "longer"
                ) from None
            if event is None or event[2] == ERROR:
                self._refuse_failure(running, event)
                answer.end()
            elif event[2] == FINISH:
                answer.end()
            elif piece := answer.feed(*event):
                yield piece
        yield answer.last()

    def _refuse_failure(self, running: Running, event: Event | None) -> None:
        code = running.done.result() if event is None and running.done else 0
        if code or event is not None:
            raise RuntimeLibraryError(
                "the runtime failed in this answer; it says more on its own output"
            )

    def _warn_of(self, library: Library, sampling: Sampling) -> None:
        """Say once what this version can't do."""
        lacking = set[str]()
        if not library.abi.own_limits and sampling.temperature != self._started.temperature:
            lacking.add("a temperature of the request's (RKLLM_TEMPERATURE is every request's)")
        if sampling.seed is not None:
            lacking.add("a seed")
        if new := lacking - self._warned:
            self._warned |= new
            version = library.version or library.abi.name
            _log.warning("the runtime %s does not know %s", version, ", ".join(sorted(new)))

    async def _end(self, running: Running) -> None:
        """Abort what still runs, and let the next one come when it has returned."""
        library, done, answer = self._library, running.done, running.answer
        try:
            if done is None or library is None or answer is None:
                return
            if answer.finish and not done.done():  # it may be about to return by itself
                await asyncio.wait([done], timeout=END_SECONDS)
            if not done.done():
                await in_thread(library.abort)
                await self._returned(done)
            # After a stop at a limit the next run may go on with this one: its cache is cleared.
            elif answer.finish == "stop" and not done.exception() and not running.failed:
                self._in_cache = await in_thread(partial(_in_cache, library, answer))
        finally:
            self._turn.release()

    async def _returned(self, done: "asyncio.Future[int]") -> None:
        """Wait for a run that was aborted; while it goes on, nobody else has a turn."""
        seconds = self._settings().drain_seconds
        finished, _ = await asyncio.wait([done], timeout=seconds)
        if not finished:
            self._stuck = (
                f"the runtime goes on with an answer that was ended {seconds:.0f} s ago: wait, or "
                "start this process anew"
            )
            _log.error("%s", self._stuck)
            await asyncio.wait([done])
            self._stuck = ""

    async def close(self) -> None:
        """Give the model back, once nothing runs."""
        library, self._library = self._library, None
        if library is None:
            return
        running = list(self._ending)
        if self._turn.locked():
            await in_thread(library.abort)
        if running:
            await asyncio.wait(running, timeout=self._settings().drain_seconds)
        if self._turn.locked():
            return  # the library still works with what would be given back
        await in_thread(library.stop)


def open_library(settings: Settings) -> Library:
    """The library, called as its version wants it. Raises RuntimeLibraryError."""
    path = find_library(settings.library)
    if path is None:
        raise RuntimeLibraryError("there is no librkllmrt.so; RKLLM_LIBRARY says where it is")
    return Library(path, settings.version)


def check(settings: Settings) -> str:
    """The library, its version, the models and the driver. Raises RuntimeLibraryError."""
    library, models = open_library(settings), find_models(settings.models)
    version = library.version or f"of the group {library.abi.name}"
    about = [f"librkllmrt {version} at {library.path}", f"models: {listed(list(models))}"]
    return "; ".join([*about, *(clean(line) for line in driver()), NEVER_RUN])


def _in_cache(library: Library, answer: Generated) -> tuple[int, ...]:
    """The ids that the KV cache has after an answer; none where the library can't say."""
    ids, size = (*answer.prompt, *answer.ids), library.cached()
    return ids[:size] if size is not None and len(answer.prompt) <= size <= len(ids) else ()
