"""Calls engines in exo's order, on an event loop that is watched."""

import asyncio
import contextlib
import functools
import importlib
import itertools
from collections.abc import Callable
from typing import Any

from . import device, exo_order
from .audit import blocking
from .check import BrokenError, NotRunError
from .events import Events, shorten
from .heartbeat import Heartbeat

STEPS = 8
REQUEST = "exo-engine-check-request-"


class Answer(list[int]):
    """The ids of an answer; what the last node's first step gave; the kinds of arrays sent."""

    first: Any = None

    def __init__(self) -> None:
        self.sent: set[str] = set()
        self.results: list[tuple[Any, Any]] = []  # each with a copy of what it was at first

    def keep(self, x: Any) -> None:
        """A step of the last node gave this array."""
        self.first = x.copy() if self.first is None else self.first
        self.results.append((x, x.copy()))

    def changed(self) -> bool:
        """Whether an array is no longer what it was when a step gave it."""
        return any(array.tobytes() != copy.tobytes() for array, copy in self.results)


class Driver:
    """A device that stays, and engines on it."""

    def __init__(
        self, events: Events, exo: Any, make: Callable[[], Any], cards: dict[str, Any]
    ) -> None:
        self.events, self.exo, self.make = events, exo, make
        self.seconds: float = events.request["seconds"]  # within which an answer has to end
        self.new_device = functools.partial(device.start, events, exo, type(make()).__name__, cards)
        self._stack = contextlib.ExitStack()  # it ends with the process
        self.device = self._stack.enter_context(self.new_device())
        self.np: Any = importlib.import_module("numpy")
        self.waits: dict[str, None] = {}  # what the event loop has waited for
        self._answers: dict[int, asyncio.Future[tuple[Answer, Any]]] = {}
        self._count = itertools.count(1)

    def request_id(self) -> str:
        """An id that no other object is called by."""
        return f"{REQUEST}{next(self._count):04}"

    def shards(self, parts: int) -> list[Any]:
        """The model on one node, or on several."""
        model, layers = self.device.model, self.device.layers
        if layers < parts:
            raise NotRunError(f"the device's model has {layers} layer, too few for {parts} nodes")
        return exo_order.split(self.exo.shard(model, 0, layers - 1, layers), parts)

    async def answer(self, *engines: Any, steps: int = STEPS) -> Answer:
        """One answer over as many nodes as there are engines."""
        request_id, shards, ids = self.request_id(), self.shards(len(engines)), Answer()

        async def step(engine: Any, name: str, shard: Any, previous: Any) -> Any:
            if engine is not engines[0]:
                ids.sent.add(previous.dtype.kind)
            x = await self.step(engine, name, request_id, shard, previous)
            if engine is engines[-1]:
                ids.keep(x)
            return x

        async for number in exo_order.answer(engines, shards, self.device.prompt, steps, step):
            if not isinstance(number, int):
                raise BrokenError(f"sample() gives {shorten(number)}, no token id")
            ids.append(number)
        return ids

    async def first(self, engine: Any, shard: Any, request_id: str) -> Any:
        return await self.step(engine, "infer_prompt", request_id, shard, self.device.prompt)

    async def step(self, engine: Any, name: str, request_id: str, shard: Any, x: Any) -> Any:
        """One step, with exo's empty state."""
        state: dict[str, Any] = {}
        made = await getattr(engine, name)(request_id, shard, x, state)
        if not isinstance(made, tuple) or len(made) != 2:
            raise BrokenError(f"{name}() gives {shorten(made)}, not an array and the state")
        array, back = made
        if back or state:
            text = f"inference_state comes back as {shorten(back or state)}, not as it was: empty"
            raise BrokenError(text)
        if not isinstance(array, self.np.ndarray):
            raise BrokenError(f"{name}() gives {shorten(array)}, no array")
        return array

    async def run(self, what: str, work: Any, seconds: float = 8.0) -> Any:
        """A step of the plugin's on this event loop, which is watched."""
        heartbeat = Heartbeat(self.events.root, self.waits)
        with heartbeat, self.events.step(what), blocking(self.waits):
            try:
                return await asyncio.wait_for(work, seconds)
            except TimeoutError:
                raise BrokenError(f"{what} has not ended after {seconds:g} s") from None

    async def nodes(self, count: int) -> Answer:
        """The answer of one node or two, made once: what other ways to get it must give too."""
        return (await self._answer_of(count))[0]

    async def first_engine(self) -> Any:
        """The engine that has given the answer of one node."""
        return (await self._answer_of(1))[1]

    def _answer_of(self, count: int) -> "asyncio.Future[tuple[Answer, Any]]":
        async def work() -> tuple[Answer, Any]:
            engines = [self.make() for _ in range(count)]
            what = f"an answer on {('one node', 'two nodes')[count - 1]}"
            return await self.run(what, self.answer(*engines)), engines[0]

        if count not in self._answers:
            self._answers[count] = asyncio.ensure_future(work())
        return self._answers[count]

    async def loaded(self) -> tuple[Any, Any]:
        """Another engine with the whole model, and its shard."""
        engine, [shard] = self.make(), self.shards(1)
        await self.nodes(1)
        await self.run("loading a model", engine.ensure_shard(shard))
        return engine, shard

    def broken_tokens(self) -> Any:
        """Ids that no vocabulary has: a step fails on them where the device can't be made to."""
        return self.np.full((1, 1), 2**40, dtype=self.np.int64)
