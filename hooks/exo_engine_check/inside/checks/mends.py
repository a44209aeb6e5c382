"""EX9: on exo's own node, whose faults a plugin has to mend, and what is seen at the end."""

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

from ..core import Check, NotRunError, Report
from ..drive import Driver
from ..kept import settle, states_of
from ..nodes import SECONDS, Gone, Heard, fails_at, make_node, start

HALF = "a step on the first half of the layers"


class Mends(Check):
    family = "exo-mends"


class EX901(Mends):
    "The engine stays when the cluster changes"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[Any]:
        """When a peer joins or leaves, exo puts tinygrad in a plugin's place (node.py:521-526), and
        the request fails there. Wrap `Node.select_best_inference_engine`, so that a node with the
        plugin's engine keeps it."""
        engine = driver.make()
        node = await make_node(driver, engine)
        node.topology_inference_engines_pool = [["mlx", "tinygrad"], ["tinygrad"]]
        await driver.run("exo's choice of an engine", node.select_best_inference_engine())
        if node.inference_engine is not engine:
            yield f"exo has put {type(node.inference_engine).__name__} in the engine's place"


class EX902(Mends):
    "A request is let go when exo's node has ended it"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[Any]:
        """After `max_generate_tokens`, or an end that another node saw, an engine hears nothing
        (node.py:144-149), but every node does: listen to `Node.on_token`, and forget the request
        when it says finished. What is kept longer is lost memory, and counts as a request in
        flight."""
        node = await make_node(driver, driver.make(), limit=3)
        heard = await start(driver, node, driver.request_id())
        if not await heard.within(SECONDS):
            raise NotRunError("the answer does not come to exo's limit")
        if not await settle(1.0, lambda: not states_of(heard.request_id, node)):
            kept = ", ".join(states_of(heard.request_id, node))
            yield f"an answer has ended at exo's limit, and {kept} is still kept for it"


async def _failing(driver: Driver, step: int) -> AsyncIterator[tuple[Heard, bool]]:
    """An answer that fails at a step, and whether it has ended."""
    with driver.fresh_device() as device:
        node = await make_node(driver, driver.make())
        heard = await fails_at(driver, node, step, device.fail)
        ended = await heard.within(SECONDS)
        if ended and not heard.failed:
            if step > 2:
                return  # the device's answers are short
            raise NotRunError(
                "no step fails: the engine takes any ids, and the device has no fail() that is felt"
                " in the middle of an answer (README)"
            )
        yield heard, ended


class EX903(Mends):
    "An error after the first token ends the answer"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[Any]:
        """exo prints an error of a later step and drops it (node.py:385-388), and the client waits
        for its timeout, 900 s by default. Wrap `Node._process_tensor`: where the engine has failed,
        let `trigger_on_token_callbacks` and `broadcast_result` say that the answer is finished."""
        for step in (2, 5):
            async for heard, ended in _failing(driver, step):
                if not ended:
                    yield f"the device fails at step {step}, and the answer never ends"
                elif heard.ends > 1:
                    yield f"the device fails at step {step}, and the answer ends {heard.ends} times"


class EX904(Mends):
    "A peer that can't be reached ends the answer"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[Any]:
        """The error of sending to the next node is an error of a task that nobody awaits
        (node.py:152, 401), and the client waits. Wrap `Node.forward_tensor`, and end the answer
        where it raises."""
        driver.shards(2)
        node = await make_node(driver, driver.make(), "gone")
        heard = await start(driver, node, driver.request_id())
        if not await heard.within(SECONDS):
            yield "the next node can't be reached, and the answer never ends"


class EX905(Mends):
    "A change of the cluster ends the answers in flight"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[Any]:
        """Who joins or leaves changes everybody's layers, and an answer whose parts were on other
        nodes waits for them (node.py:448). Wrap `Node.update_peers`: where it says that something
        has changed, end the requests that needed another node."""
        engine, (shard, _) = driver.make(), driver.shards(2)
        node = await make_node(driver, engine, "gone")
        request_id = driver.request_id()
        given = await engine.encode(shard, driver.device.prompt)
        out = await driver.run(HALF, driver.first(engine, shard, request_id))
        if out.dtype == driver.np.uint8 or driver.np.array_equal(
            out.reshape(-1), given.reshape(-1)
        ):
            raise NotRunError("the engine runs whole models and needs no other node")
        heard = Heard(node, request_id)
        node.discovery = Gone()
        await driver.run("exo's look at its peers", node.update_peers())
        if not await heard.within(SECONDS):
            yield "a node has left the cluster, and the answer that needed it never ends"


class EX906(Mends):
    "Hidden states that nobody can use are refused"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[Any]:
        """A node that restarts believes for some seconds that it has all layers, while its peers
        send it hidden states. Their first step on it must be an error, and no answer of anything.
        Look at the dtype: ids are integers."""
        await driver.one_node()
        engine, other, (left, _) = driver.make(), driver.make(), driver.shards(2)
        hidden = await driver.run(HALF, driver.first(engine, left, driver.request_id()))
        if hidden.dtype.kind != "f":
            raise NotRunError("the engine runs whole models and sends no hidden states")
        whole = driver.shards(1)[0]
        try:
            await other.ensure_shard(whole)
            work = other.infer_tensor(driver.request_id(), whole, driver.wire(hidden), {})
            await asyncio.wait_for(work, SECONDS)
        except Exception:
            return
        yield "hidden states are taken for a prompt by an engine with all layers"


class EX907(Mends):
    "An exo without the fault is left alone"

    faultless = True

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[Any]:
        """A newer exo may end failed answers itself. A mend that does it again ends them twice, and
        what comes second can fall on another request. Look whether the answer has ended already:
        `node.buffered_token_output[request_id][1]`."""
        async for heard, ended in _failing(driver, 2):
            await asyncio.sleep(0.1)
            if not ended or heard.ends != 1:
                yield f"an exo that ends failed answers itself ends them {heard.ends} times"
        if driver.device.layers > 1:
            heard = await start(
                driver, await make_node(driver, driver.make(), "gone"), driver.request_id()
            )
            await heard.within(SECONDS)
            await asyncio.sleep(0.1)
            if heard.ends != 1:
                yield f"an exo that ends cut answers itself ends them {heard.ends} times"


class Ending(Check):
    family = "exo-ending"


class EX951(Ending):
    "The plugin starts no crowd of threads or processes"

    @staticmethod
    def check(report: Report, imported: Any) -> Iterator[Any]:
        """A node has other work than a plugin's. More than 512 threads, 6 forks or 32 programs are
        refused here. Start a bounded number."""
        yield from report.crowds


class EX952(Ending):
    "Nothing is written to stdout"

    @staticmethod
    def check() -> Iterator[Any]:
        """stdout belongs to exo: `exo run` prints its answer there (main.py:254), and the terminal
        view is drawn over it. Use `logging`."""
        yield from ()  # the parent has read it


class EX953(Ending):
    "The engine's module can be imported twice"

    @staticmethod
    def check(report: Report, engines: dict[str, Any]) -> Iterator[Any]:
        """A module is imported anew after a failed import, and exo registers metrics in the same
        registry (prometheus_metrics.py:15). A second registration of a name is a ValueError,
        "Duplicated timeseries": catch it, and use a metric that is not registered."""
        for engine in engines.values():
            package = engine.__module__.partition(".")[0]
            for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
                del sys.modules[name]
            with report.step(f"importing {engine.__module__} a second time"):
                importlib.import_module(engine.__module__)
        yield from ()
