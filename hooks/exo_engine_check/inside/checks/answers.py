"""EX8: answers on the plugin's device, driven as a node of exo drives an engine."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from ..core import BrokenError, Check, NotRunError, describe, shorten
from ..drive import REQUEST, Driver, StateError
from ..eos import with_eos_of_zero
from ..imports import Imported, collectors
from ..kept import Growth
from ..nodes import broken_tokens


class Answers(Check):
    family = "exo-answers"


class EX801(Answers):
    "The engine answers as exo drives it"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[Any]:
        """One answer in exo's order: `ensure_shard` and `infer_prompt` at once (main.py:210,
        node.py:214), `sample(result, temp=…)` and `item()` (node.py:128-130), then `infer_tensor`
        for each token (node.py:382). Then exo wants `shard` and `tokenizer` of the engine
        (main.py:186-190)."""
        try:
            ids = await driver.one_node()
        except StateError as error:
            raise NotRunError(str(error)) from error  # EX802 says it
        engine = driver.first_engine
        if engine.shard != (shard := driver.shards(1)[0]):
            yield f"after an answer the engine's shard is {shorten(engine.shard)}, not {shard}"
        text = engine.tokenizer.decode(ids)
        if not isinstance(text, str):
            yield f"tokenizer.decode() gives {shorten(text)}, no text"
        await driver.measure()


class EX802(Answers):
    "Nothing is put into inference_state"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[Any]:
        """On Linux exo can't send a state that is not empty to the next node: `np.array` is no type
        (grpc_peer_handle.py:203), and the request dies. Keep the state in the engine, under its
        `request_id`, and return `inference_state` as it came."""
        try:
            await driver.one_node()
        except StateError as error:
            yield str(error)


class EX803(Answers):
    "The input is read-only, and not changed"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[Any]:
        """A tensor from another node is `np.frombuffer`, which is read-only (grpc_server.py:82): a
        change in place is a ValueError in a cluster and nowhere else. Make a new array, or copy
        first: `x = x.copy()`."""
        before = await driver.one_node()
        work = driver.answer([driver.make()], send=driver.wire)
        again = await driver.run("an answer from read-only arrays", work)
        if again != before:
            yield f"read-only arrays give {again}, others {before}"


class EX804(Answers):
    "Two nodes give what one gives"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[Any]:
        """A cluster splits the layers, and tensors travel (grpc_peer_handle.py:80): the same prompt
        on two halves must give the same tokens as on one node. An engine that can only run whole
        models hands the input on where it has not the last layer."""
        before = await driver.one_node()
        work = driver.answer([driver.make(), driver.make()])
        together = await driver.run("an answer on two nodes", work)
        if together != before:
            yield f"two nodes give {together}, one gives {before}"


class EX805(Answers):
    "Requests that interleave don't mix"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[Any]:
        """Every request is a task of its own (node.py:152), and any `await` lets another one in.
        Keep what belongs to a request under its `request_id`."""
        before = await driver.one_node()
        engine = driver.make()
        work = asyncio.gather(*(driver.answer([engine]) for _ in range(4)))
        for answer in await driver.run("four answers at once", work):
            if answer != before:
                yield f"among others a request is answered with {answer}, alone with {before}"
                return


class EX806(Answers):
    "An end token with the id 0 is an end token"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[Any]:
        """exo's API takes an id of 0 for none (chatgpt_api.py:416,481), and the engine must not do
        the same: its answers would never end. Compare with None: `if eos_token_id is None`."""
        before = await driver.one_node()
        with with_eos_of_zero(driver.devices.folder) as changed:
            engine = driver.make()
            shard = driver.shards(1)[0]
            with driver.report.step("loading a model whose end token is 0"):
                await engine.ensure_shard(shard)
                if not changed:
                    engine.tokenizer.eos_token_id = 0
            if engine.tokenizer.eos_token_id != 0:
                yield f"tokenizer.eos_token_id is {engine.tokenizer.eos_token_id}, not 0"
                return
            work = driver.answer([engine], steps=len(before))
            answer = await driver.run("an answer whose end token is 0", work)
        # Its own end has another id now, and what was text before may end it.
        shorter = min(len(answer), len(before)) - 1
        if not answer or answer[:shorter] != before[:shorter]:
            yield f"with an end token of 0 the answer is {answer}, not {before}"


class EX807(Answers):
    "Nothing blocks the event loop"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[Any]:
        """Requests, gRPC and the API share one event loop (node.py:382, main.py:210): while an
        async function sleeps or waits in a plain call, every other request stands still. Await an
        async library, or hand the call to a thread with `asyncio.to_thread`."""
        await driver.one_node()
        for what in driver.blocked:
            yield f"the event loop waits for {what}"


class EX808(Answers):
    "An error in the first step is told"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[Any]:
        """An exception of the first step is HTTP 500 with its text (node.py:214): let it be an
        Exception that says what to do, and let the next request be answered as before."""
        before = await driver.one_node()
        with driver.fresh_device() as device:
            engine, shard = driver.make(), driver.shards(1)[0]
            await driver.run("loading a model", engine.ensure_shard(shard))
            work = engine.infer_tensor(driver.request_id(), shard, broken_tokens(driver), {})
            if device.fail is not None:
                work.close()
                device.fail()
                work = driver.first(engine, shard, driver.request_id())
            try:
                await asyncio.wait_for(work, 8)
            except Exception as error:
                if not str(error).strip():
                    yield f"an error of the first step has no text: {describe(error)}"
            else:
                if device.fail is not None:
                    yield "the device fails, and the first step does not"
            if device.fail is None:
                work = driver.answer([engine])
                if (after := await driver.run("an answer after an error", work)) != before:
                    yield f"after another request's error the answer is {after}, not {before}"


class EX809(Answers):
    "What is kept for a request is let go again"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[Any]:
        """Nobody tells an engine that a request has ended: not after the last token, not when a
        client goes away (node.py:144-149). What is kept for each of them grows until the node dies.
        Bound it: the least recently used goes, or newcomers are refused."""
        await driver.one_node()
        engine, shard = driver.make(), driver.shards(1)[0]
        await driver.run("loading a model", engine.ensure_shard(shard))
        answered = await _wave(driver, engine, shard)
        growth = Growth(driver.device.handle)
        answered += await _wave(driver, engine, shard)
        for container in growth.by(90):
            yield f"200 requests that nobody ended leave {container} that grows with each"
        if not answered:
            raise BrokenError("of 200 requests not one is answered")


async def _wave(driver: Driver, engine: Any, shard: Any) -> int:
    """A hundred first steps; whoever is made to wait for others to end is sent away."""
    steps = [driver.first(engine, shard, driver.request_id()) for _ in range(100)]
    pending = {asyncio.ensure_future(step) for step in steps}
    answered = 0
    while pending:
        done, pending = await asyncio.wait(
            pending, timeout=0.3, return_when=asyncio.FIRST_COMPLETED
        )
        answered += sum(task.exception() is None for task in done)
        if not done:
            break
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    return answered


class EX810(Answers):
    "No metric has a label of a request"

    @staticmethod
    async def check(driver: Driver, imported: Imported) -> AsyncIterator[Any]:
        """Prometheus keeps a time series for every value of a label, for as long as the process
        lives; one for each request grows without end (exo's own does: rkllm/metrics.py:45-49).
        Count requests by outcome, phase or model."""
        await driver.one_node()
        for collector in collectors() - imported.collectors:
            labels = set(getattr(collector, "_labelnames", ()))
            for metric in collector.collect():
                for label in sorted(labels & {"request", "request_id"} | _asked(metric)):
                    yield f"the metric {metric.name} has the label {label}"


def _asked(metric: Any) -> set[str]:
    """The labels of a metric whose values are ids of requests of this check."""
    found = ((k, v) for sample in metric.samples for k, v in sample.labels.items())
    return {label for label, value in found if str(value).startswith(REQUEST)}
