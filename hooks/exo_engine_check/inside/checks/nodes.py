"""EX90: exo's own node, whose faults a plugin may patch."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from .. import host
from ..check import CannotError, Check, NotRunError
from ..driver import Driver
from ..exo_order import wire
from ..leaks import states_of
from ..nodes import Listener, Peer, before_step, discovery, failing, make_node, start
from ..patience import settle

HALF = "a step on the first half of the layers"


class EX901(Check, row="faults", host_fault=True):
    "The engine stays when the cluster changes"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """When a peer joins or leaves, exo puts tinygrad in a plugin's place (node.py:521-526), and
        the request fails there. Wrap `Node.select_best_inference_engine`, so that a node with the
        plugin's engine keeps it."""
        node = await make_node(driver)
        engine = node.inference_engine
        node.topology_inference_engines_pool = [["mlx", "tinygrad"], ["tinygrad"]]
        await driver.run("exo's choice of an engine", node.select_best_inference_engine())
        if node.inference_engine is not engine:
            yield f"exo has put {type(node.inference_engine).__name__} in the engine's place"


class EX902(Check, row="faults", host_fault=True):
    "A request is let go when exo's node has ended it"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """After `max_generate_tokens`, or an end that another node saw, an engine hears nothing
        (node.py:144-149), but every node does: listen to `Node.on_token`, and forget the request
        when it says finished. What is held longer is lost memory, and counts as a request in
        flight."""
        node = await make_node(driver, limit=3)
        listener = await start(driver, node)
        if not await listener.within(8):
            raise NotRunError("the answer does not come to exo's limit")
        if not await settle(1.0, lambda: not states_of(listener.request_id, node)):
            states = ", ".join(states_of(listener.request_id, node)) or "something"
            yield f"an answer has ended at exo's limit, and {states} is still held for it"


class EX903(Check, row="faults", host_fault=True):
    "An error after the first token ends the answer"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """exo prints an error of a later step and drops it (node.py:385-388), and the client waits
        for its timeout, 900 s by default. Wrap `Node._process_tensor`: where the engine has failed,
        let `trigger_on_token_callbacks` and `broadcast_result` say that the answer is finished."""
        for step in (2, 5):
            async for listener, ended in failing(driver, step):
                if not ended:
                    yield f"the device fails at step {step}, and the answer never ends"
                elif (ends := listener.ends) > 1:
                    yield f"the device fails at step {step}, and the answer ends {ends} times"


class EX904(Check, row="faults", host_fault=True):
    "A peer that can't be reached ends the answer"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """The error of sending to the next node is an error of a task that nobody awaits
        (node.py:152, 401), and the client waits. Wrap `Node.forward_tensor`, and end the answer
        where it raises."""
        driver.shards(2)
        listener = await start(driver, await make_node(driver, Peer()))
        if not await listener.within():
            yield "the next node can't be reached, and the answer never ends"


class EX905(Check, row="faults", host_fault=True):
    "A change of the cluster ends the answers in flight, or waits for them"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """Who joins or leaves changes everybody's layers, and an answer whose parts were on other
        nodes waits for them (node.py:448). Wrap `Node.update_peers`: leave out who joins while
        answers are in flight, or end them; where somebody has left, end those that needed him."""
        driver.shards(2)
        node = await make_node(driver, limit=8)

        async def join(tensor: Any) -> Any:
            node.discovery = discovery(Peer(reached=True))
            await driver.run("exo's look at its peers", node.update_peers())
            return tensor

        before_step(node, 2, join)
        listener = await start(driver, node)
        if not await listener.within():
            yield "a node joins in the middle of an answer, and the answer never ends"
        peer = Peer(reached=True)
        node = await make_node(driver, peer)
        listener = await start(driver, node)
        await settle(1.0, lambda: bool(peer.tensors))
        node.discovery = discovery()
        await driver.run("exo's look at its peers", node.update_peers())
        # An engine of whole models needs nobody's layers.
        if any(part.dtype.kind == "f" for part in peer.tensors) and not await listener.within():
            yield "a node has left the cluster, and the answer that needed it never ends"


class EX906(Check, row="split by layers"):
    "Hidden states that nobody can use are refused"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """A node that restarts believes for some seconds that it has all layers, while its peers
        send it hidden states. Their first step on it must be an error, and no answer of anything.
        Look at the dtype: ids are integers."""
        await driver.nodes(1)
        engine, other, (left, _) = driver.make(), driver.make(), driver.shards(2)
        hidden = await driver.run(HALF, driver.first(engine, left, driver.request_id()))
        if hidden.dtype.kind != "f":
            raise CannotError("the engine runs whole models and sends no hidden states")
        whole = driver.shards(1)[0]
        try:
            await other.ensure_shard(whole)
            work = other.infer_tensor(driver.request_id(), whole, wire(hidden), {})
            await asyncio.wait_for(work, driver.seconds)
        except Exception:
            return
        yield "hidden states are taken for a prompt by an engine with all layers"


class EX907(Check, row="split by layers", host_fault=True):
    "A step for other layers is refused"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """While the cluster changes, one node counts on other layers than another has: hidden
        states fit all the same, and the answer is wrong. Wrap `Node.process_tensor`, and raise
        where `get_current_shard(base_shard)` is another shard than it was sent for."""
        node = await make_node(driver, Peer(reached=True), is_last=True)
        before, *_ = driver.shards(3)
        others = type(before)(before.model_id, 1, before.n_layers - 1, before.n_layers)
        x = await driver.run(HALF, driver.first(driver.make(), before, driver.request_id()))
        if x.dtype.kind != "f":
            raise CannotError("the engine runs whole models and sends no hidden states")
        listener = Listener(driver, node, driver.request_id())
        with contextlib.suppress(Exception):
            await node.process_tensor(others, wire(x), listener.request_id, {})
        if listener.ids and not listener.ended.is_set():
            yield "a node computes a step that was meant for other layers than it has"


class EX908(Check, row="faults", host_fault=True):
    "Looks at the ring don't overtake each other"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """exo looks at the ring every few seconds and when peers change, and a slow look of before
        replaces what a later one saw (node.py:530): a node that is gone has layers again. Wrap
        `Node.collect_topology`, with one lock a node."""
        await driver.nodes(1)
        running = [0, 0]

        async def collect_topology(*_: Any, **__: Any) -> None:
            running[0] += 1
            running[1] = max(running)
            await asyncio.sleep(0.02)
            running[0] -= 1

        with driver.exo.anew():
            driver.exo.load(host.NODE).Node.collect_topology = collect_topology
            node = await make_node(driver)
            running[:] = 0, 0  # a patch may have looked whether exo's own does it
            await asyncio.gather(*(type(node).collect_topology(node, set()) for _ in range(2)))
        if running[1] > 1:
            yield "two looks at the ring run at once, and the older one may win"
