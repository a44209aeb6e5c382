"""EX8: answers on the plugin's device, driven as a node of exo drives an engine."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from ..check import BrokenError, Check
from ..driver import REQUEST, Driver
from ..events import describe, shorten
from ..leaks import Growth

WAITING = 0.2  # seconds without an answer, after which the rest waits for others to end


class EX801(Check, row="answers"):
    "The engine answers as exo drives it"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """One answer in exo's order: `ensure_shard` and `infer_prompt` at once (main.py:210,
        node.py:214), `sample(result, temp=…)` and `item()` (node.py:128-130), then `infer_tensor`
        for each token (node.py:382). Then exo wants `shard` and `tokenizer` of the engine
        (main.py:186-190). `inference_state` comes back as it was: one that is not empty can't be
        sent to the next node (grpc_peer_handle.py:203)."""
        ids = await driver.nodes(1)
        engine = await driver.first_engine()
        if engine.shard != (shard := driver.shards(1)[0]):
            yield f"after an answer the engine's shard is {shorten(engine.shard)}, not {shard}"
        text = engine.tokenizer.decode(ids)
        if not isinstance(text, str):
            yield f"tokenizer.decode() gives {shorten(text)}, no text"


class EX804(Check):
    "Two nodes give what one gives"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """A cluster splits the layers, and tensors travel (grpc_peer_handle.py:80): the same prompt
        on two halves must give the same tokens as on one node. What arrives is `np.frombuffer`,
        which is read-only (grpc_server.py:82): copy before a change in place. An engine that can
        only run whole models hands the input on where it has not the last layer."""
        before = await driver.nodes(1)
        together = await driver.nodes(2)
        if together != before:
            yield f"two nodes give {together}, one gives {before}"


class EX805(Check, row="answers"):
    "Requests that interleave don't mix"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """Every request is a task of its own (node.py:152), and any `await` lets another one in.
        Keep what belongs to a request under its `request_id`."""
        before = await driver.nodes(1)
        engine = driver.make()
        work = asyncio.gather(*(driver.answer(engine) for _ in range(4)))
        for answer in await driver.run("four answers at once", work):
            if answer != before:
                yield f"among others a request is answered with {answer}, alone with {before}"
                return


class EX806(Check):
    "An end token with the id 0 is an end token"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """exo's API takes an id of 0 for none (chatgpt_api.py:416,481), and the engine must not do
        the same: its answers would never end. Compare with None: `if eos_token_id is None`."""
        before = await driver.nodes(1)
        with _end_of_zero(driver.device.folder) as changed:
            engine = driver.make()
            with driver.events.step("loading a model whose end token is 0"):
                await engine.ensure_shard(driver.shards(1)[0])
                if not changed:
                    engine.tokenizer.eos_token_id = 0
            if engine.tokenizer.eos_token_id != 0:
                yield f"tokenizer.eos_token_id is {engine.tokenizer.eos_token_id}, not 0"
                return
            work = driver.answer(engine, steps=len(before))
            answer = await driver.run("an answer whose end token is 0", work)
        # Its own end has another id now, and what was text before may end it.
        shorter = min(len(answer), len(before)) - 1
        if not answer or answer[:shorter] != before[:shorter]:
            yield f"with an end token of 0 the answer is {answer}, not {before}"


@contextlib.contextmanager
def _end_of_zero(folder: Path) -> Iterator[bool]:
    """Change the files of a model in the Hugging Face form; gives whether there are such files."""
    before = {path: path.read_bytes() for path in folder.glob("*.json")}
    files = {path.name: json.loads(content) for path, content in before.items()}
    vocabulary = files.get("tokenizer.json", {}).get("model", {}).get("vocab", {})
    listed = vocabulary.items() if isinstance(vocabulary, dict) else ()
    names = {number: name for name, number in listed}
    names |= {
        t["id"]: t["content"] for t in files.get("tokenizer.json", {}).get("added_tokens", ())
    }
    ends = {"tokenizer_config.json": {"eos_token": names.get(0)}}
    ends |= {"generation_config.json": {"eos_token_id": 0}, "config.json": {"eos_token_id": 0}}
    changed = 0 in names and "tokenizer_config.json" in files
    for name in ends.keys() & files.keys() if changed else ():
        _replace(folder / name, json.dumps(files[name] | ends[name]).encode())
    try:
        yield changed
    finally:
        for path, content in before.items():
            _replace(path, content)


def _replace(path: Path, content: bytes) -> None:
    """Another file in a file's place: it may be a link to what is the author's."""
    path.unlink()
    path.write_bytes(content)


class EX807(Check):
    "Nothing blocks the event loop"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """Requests, gRPC and the API share one event loop (node.py:382, main.py:210): while an
        async function sleeps or waits in a plain call, every other request stands still. Await an
        async library, or hand the call to a thread with `asyncio.to_thread`."""
        await driver.nodes(1)
        for what in driver.waits:
            yield f"the event loop waits for {what}"


class EX808(Check, row="faults"):
    "An error in the first step reaches the user"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """An exception of the first step is HTTP 500 with its text (node.py:214): let it be an
        Exception that says what to do, and let the next request be answered as before."""
        before = await driver.nodes(1)
        with driver.new_device() as device:
            engine, shard = await driver.loaded()
            try:
                if device.fail is not None:
                    device.fail()
                    await asyncio.wait_for(driver.first(engine, shard, driver.request_id()), 8)
                    yield "the device fails, and the first step does not"
                else:
                    await _impossible_steps(driver, engine, shard)
                    if before.first.dtype.kind == "f":  # a server may be asked for anything
                        yield "steps on impossible ids give results: errors are swallowed"
            except Exception as error:
                if not str(error).strip():
                    yield f"an error of the first step has no text: {describe(error)}"
            if device.fail is None:
                after = await driver.run("an answer after an error", driver.answer(engine))
                if after != before:
                    yield f"after another request's error the answer is {after}, not {before}"


async def _impossible_steps(driver: Driver, engine: Any, shard: Any) -> None:
    """Steps on ids that no vocabulary has, and on none. Raises whatever the engine raises."""
    for ids in (driver.broken_tokens(), driver.broken_tokens()[:, :0]):
        await asyncio.wait_for(engine.infer_tensor(driver.request_id(), shard, ids, {}), 8)


class EX809(Check):
    "What is held for a request is let go again"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """Nobody tells an engine that a request has ended: not after the last token, not when a
        client goes away (node.py:144-149). What is held for each of them grows until the node dies.
        Bound it: the least recently used goes, or newcomers are refused."""
        engine, shard = await driver.loaded()
        if not await _wave(driver, engine, shard, 3.0):
            raise BrokenError("of 100 requests not one is answered")
        growth = Growth(driver.device.handle)
        await _wave(driver, engine, shard, WAITING)
        for container in growth.by(90):
            yield f"200 requests that nobody ended leave {container} that grows with each"


async def _wave(driver: Driver, engine: Any, shard: Any, patience: float) -> bool:
    """Whether any of 100 first steps is answered; who waits for others to end is sent away."""
    steps = [driver.first(engine, shard, driver.request_id()) for _ in range(100)]
    tasks = pending = {asyncio.ensure_future(step) for step in steps}
    done, when = tasks, asyncio.FIRST_COMPLETED
    while pending and done:
        done, pending = await asyncio.wait(pending, timeout=patience, return_when=when)
        patience = WAITING
    for task in pending:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    return not all(isinstance(end, BaseException) for end in ends)


class EX810(Check, row="metrics"):
    "No metric has a label of a request"

    @staticmethod
    async def check(driver: Driver, collectors: list[Any]) -> AsyncIterator[str]:
        """Prometheus keeps a time series for every value of a label, for as long as the process
        lives; one for each request grows without end (exo's own does: rkllm/metrics.py:45-49).
        Count requests by outcome, phase or model."""
        await driver.nodes(1)
        for collector in collectors:
            labels = {"request", "request_id"} & set(getattr(collector, "_labelnames", ()))
            for metric in collector.collect():
                values = ((k, v) for sample in metric.samples for k, v in sample.labels.items())
                labels |= {label for label, value in values if str(value).startswith(REQUEST)}
                for label in sorted(labels):
                    yield f"the metric {metric.name} has the label {label}"


class EX813(Check):
    "What a step gives stays as it is"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """exo keeps the array of a step until it is sampled or sent (node.py:144-152), and another
        request's step may come first. A buffer that is written again gives that one another's
        logits. Give a new array, or a copy."""
        answer = await driver.nodes(1)
        if answer.changed():
            yield "an array that a step gave is other after later steps: its buffer is used again"
