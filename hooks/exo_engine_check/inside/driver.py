"""Calls engines as a node of exo does: its order, its arguments, its arrays."""

import asyncio
import contextlib
import functools
import importlib
import itertools
from collections.abc import Callable
from typing import Any

from . import device
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
        cuts = [layers * n // parts for n in range(parts + 1)]
        return [self.exo.shard(model, a, b - 1, layers) for a, b in itertools.pairwise(cuts)]

    def wire(self, array: Any) -> Any:
        """What a peer gets: read-only, and only dtypes with a name of NumPy's."""
        received = self.np.frombuffer(array.tobytes(), dtype=self.np.dtype(str(array.dtype)))
        return received.reshape(array.shape)

    async def answer(self, *engines: Any, steps: int = STEPS) -> Answer:
        """One answer over as many nodes as there are engines."""
        request_id, shards, ids = self.request_id(), self.shards(len(engines)), Answer()
        loading = asyncio.ensure_future(engines[0].ensure_shard(shards[0]))
        x = await self.first(engines[0], shards[0], request_id)
        await loading
        while True:
            for engine, shard in list(zip(engines, shards, strict=True))[1:]:
                ids.sent.add(x.dtype.kind)
                x = await self.step(engine, "infer_tensor", request_id, shard, self.wire(x))
            ids.first = x.copy() if ids.first is None else ids.first
            ids.results.append((x, x.copy()))
            token, number = await self._pick(engines[-1], shards[-1], x)
            ids.append(number)
            if number == engines[-1].tokenizer.eos_token_id or len(ids) >= steps:
                return ids
            x = token.reshape(1, -1) if len(engines) == 1 else self.wire(token.reshape(1, -1))
            x = await self.step(engines[0], "infer_tensor", request_id, shards[0], x)

    async def first(self, engine: Any, shard: Any, request_id: str) -> Any:
        return await self.step(engine, "infer_prompt", request_id, shard, self.device.prompt)

    async def step(self, engine: Any, name: str, request_id: str, shard: Any, given: Any) -> Any:
        """One step, with exo's empty state."""
        state: dict[str, Any] = {}
        made = await getattr(engine, name)(request_id, shard, given, state)
        if not isinstance(made, tuple) or len(made) != 2:
            raise BrokenError(f"{name}() gives {shorten(made)}, not an array and the state")
        array, back = made
        if back or state:
            text = f"inference_state comes back as {shorten(back or state)}, not as it was: empty"
            raise BrokenError(text)
        if not isinstance(array, self.np.ndarray):
            raise BrokenError(f"{name}() gives {shorten(array)}, no array")
        return array

    async def _pick(self, engine: Any, shard: Any, result: Any) -> tuple[Any, int]:
        """Sample on the last node, as exo does; `item()` wants exactly one element."""
        token = await engine.sample(result, temp=0.0)
        await engine.ensure_shard(shard)
        number = token.item()
        if not isinstance(number, int):
            raise BrokenError(f"sample() gives {shorten(number)}, no token id")
        return token, number

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
