"""Calls engines as a node of exo does: its order, its arguments, its arrays."""

import asyncio
import contextlib
import importlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .core import BrokenError, NotRunError, Report, shorten
from .device import Device, Devices
from .guards import auditing, blocking

STEPS = 8
REQUEST = "exo-engine-check-request-"
SAMPLE = "  caf\u00e9, \u4f60\u597d \U0001f642\n\n\tend "
STILL = 1.0  # seconds for which an event loop may stand still


class Driver:
    """A device, and engines on it."""

    def __init__(
        self,
        report: Report,
        exo: Any,
        devices: Devices,
        device: Device,
        make: Callable[[], Any],
        class_name: str,
        cards: dict[str, Any],
    ) -> None:
        self.report, self.exo, self.devices, self.device = report, exo, devices, device
        self.make, self.class_name, self.cards = make, class_name, cards
        self.np: Any = importlib.import_module("numpy")
        self.blocked: dict[str, None] = {}
        self.alone: list[int] | BrokenError | NotRunError | None = None
        self.first_engine: Any = None
        self._count = 0

    @contextlib.contextmanager
    def fresh_device(self) -> Iterator[Device]:
        """The device once more: a check is going to break it."""
        with self.devices.open(self.exo, self.class_name, self.cards) as device:
            yield device

    def request_id(self) -> str:
        """An id that no other object is called by."""
        self._count += 1
        return f"{REQUEST}{self._count:04}"

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

    def as_it_is(self, array: Any) -> Any:
        return array

    async def answer(
        self,
        engines: Sequence[Any],
        *,
        steps: int = STEPS,
        send: Callable[[Any], Any] | None = None,
    ) -> list[int]:
        """The ids of one answer over as many nodes as there are engines."""
        request_id = self.request_id()
        send = send or (self.wire if len(engines) > 1 else self.as_it_is)
        shards = self.shards(len(engines))
        loading = asyncio.ensure_future(engines[0].ensure_shard(shards[0]))
        x = await self.first(engines[0], shards[0], request_id)
        await loading
        x = await self._others(engines, shards, request_id, x, send)
        ids: list[int] = []
        while True:
            token, number = await self.pick(engines[-1], shards[-1], x)
            ids.append(number)
            if number == engines[-1].tokenizer.eos_token_id or len(ids) >= steps:
                return ids
            x = send(token.reshape(1, -1))
            x = await self.later(engines[0], shards[0], request_id, x)
            x = await self._others(engines, shards, request_id, x, send)

    async def first(self, engine: Any, shard: Any, request_id: str) -> Any:
        """The first step, with exo's empty state."""
        state: dict[str, Any] = {}
        given = await engine.infer_prompt(request_id, shard, self.device.prompt, state)
        return self._output(given, state, "infer_prompt")

    async def later(self, engine: Any, shard: Any, request_id: str, x: Any) -> Any:
        state: dict[str, Any] = {}
        given = await engine.infer_tensor(request_id, shard, x, state)
        return self._output(given, state, "infer_tensor")

    async def _others(
        self, engines: Sequence[Any], shards: list[Any], request_id: str, x: Any, send: Any
    ) -> Any:
        for engine, shard in list(zip(engines, shards, strict=True))[1:]:
            x = await self.later(engine, shard, request_id, send(x))
        return x

    def _output(self, given: Any, state: Any, name: str) -> Any:
        if not isinstance(given, tuple) or len(given) != 2:
            raise BrokenError(f"{name}() gives {shorten(given)}, not an array and the state")
        array, back = given
        if back or state:
            text = f"inference_state comes back as {shorten(back or state)}, not as it was: empty"
            raise StateError(text)
        if not isinstance(array, self.np.ndarray):
            raise BrokenError(f"{name}() gives {shorten(array)}, no array")
        return array

    async def pick(self, engine: Any, shard: Any, result: Any) -> tuple[Any, int]:
        """Sample on the last node, as exo does; `item()` wants exactly one element."""
        token = await engine.sample(result, temp=0.0)
        await engine.ensure_shard(shard)
        number = token.item()
        if not isinstance(number, int):
            raise BrokenError(f"sample() gives {shorten(number)}, no token id")
        return token, number

    async def run(self, what: str, work: Any, seconds: float = 8.0) -> Any:
        """Await something of the plugin's, while somebody watches the event loop."""
        watch = asyncio.ensure_future(self._watch())
        try:
            with auditing(blocking(self.blocked)), self.report.step(what):
                try:
                    return await asyncio.wait_for(work, seconds)
                except TimeoutError:
                    raise BrokenError(f"{what} has not ended after {seconds:g} s") from None
        finally:
            watch.cancel()

    async def _watch(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            if (gap := time.perf_counter() - before) > STILL:
                self.blocked[f"something, for {gap:.1f} s"] = None

    async def one_node(self) -> list[int]:
        """The answer of one node, asked once: what other ways to ask must give too."""
        if self.alone is None:
            try:
                engine = self.make()
                self.alone = await self.run("an answer on one node", self.answer([engine]))
                self.first_engine = engine
            except (BrokenError, NotRunError) as error:
                self.alone = error
        if isinstance(self.alone, Exception):
            raise self.alone
        return self.alone

    async def measure(self) -> None:
        """Tell what is no fault, whichever way it is."""
        engine, shard = self.first_engine, self.shards(1)[0]
        tokenizer = engine.tokenizer
        kept = tokenizer.decode(list(tokenizer.encode(SAMPLE))) == SAMPLE
        self.report.write(can="lossless text", value="yes" if kept else "no")
        request_id = self.request_id()
        logits = await self.first(engine, shard, request_id)
        drawn = {(await engine.sample(logits, temp=50.0)).item() for _ in range(12)}
        value = "yes" if len(drawn) > 1 else "no"
        self.report.write(can="sampling", value=value)
        with contextlib.suppress(Exception):  # EX804 says it
            hidden = await self.first(self.make(), self.shards(2)[0], request_id)
            value = "yes" if hidden.dtype.kind == "f" else "no"
            self.report.write(can="split by layers", value=value)


class StateError(BrokenError):
    """Something was put into inference_state."""
