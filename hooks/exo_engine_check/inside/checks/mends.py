"""EX9: on exo's own node and API, whose faults a plugin has to mend, and at the end."""

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

from .. import host
from ..core import Check, NotRunError, Report
from ..drive import Driver
from ..kept import settle, states_of
from ..nodes import (
    SECONDS,
    Discovery,
    Peer,
    ask_api,
    before_step,
    failing,
    held,
    make_node,
    start,
)

HALF = "a step on the first half of the layers"


class EX901(Check):
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


class EX902(Check):
    "A request is let go when exo's node has ended it"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """After `max_generate_tokens`, or an end that another node saw, an engine hears nothing
        (node.py:144-149), but every node does: listen to `Node.on_token`, and forget the request
        when it says finished. What is kept longer is lost memory, and counts as a request in
        flight."""
        node = await make_node(driver, limit=3)
        heard = await start(driver, node)
        if not await heard.within():
            raise NotRunError("the answer does not come to exo's limit")
        if not await settle(1.0, lambda: not states_of(heard.request_id, node)):
            kept = ", ".join(states_of(heard.request_id, node))
            yield f"an answer has ended at exo's limit, and {kept} is still kept for it"


class EX903(Check):
    "An error after the first token ends the answer"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """exo prints an error of a later step and drops it (node.py:385-388), and the client waits
        for its timeout, 900 s by default. Wrap `Node._process_tensor`: where the engine has failed,
        let `trigger_on_token_callbacks` and `broadcast_result` say that the answer is finished."""
        for step in (2, 5):
            async for heard, ended in failing(driver, step):
                if not ended:
                    yield f"the device fails at step {step}, and the answer never ends"
                elif heard.ends > 1:
                    yield f"the device fails at step {step}, and the answer ends {heard.ends} times"


class EX904(Check):
    "A peer that can't be reached ends the answer"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """The error of sending to the next node is an error of a task that nobody awaits
        (node.py:152, 401), and the client waits. Wrap `Node.forward_tensor`, and end the answer
        where it raises."""
        driver.shards(2)
        heard = await start(driver, await make_node(driver, Peer()))
        if not await heard.within():
            yield "the next node can't be reached, and the answer never ends"


class EX905(Check):
    "A change of the cluster ends the answers in flight, or waits for them"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """Who joins or leaves changes everybody's layers, and an answer whose parts were on other
        nodes waits for them (node.py:448). Wrap `Node.update_peers`: leave out who joins while
        answers are in flight, or end them; where somebody has left, end those that needed him."""
        driver.shards(2)
        node = await make_node(driver)

        async def join(tensor: Any) -> Any:
            node.discovery = Discovery(Peer(reached=True))
            await driver.run("exo's look at its peers", node.update_peers())
            return tensor

        before_step(node, 2, join)
        heard = await start(driver, node)
        if not await heard.within():
            yield "a node joins in the middle of an answer, and the answer never ends"
        peer = Peer(reached=True)
        node = await make_node(driver, peer)
        heard = await start(driver, node)
        await settle(1.0, lambda: bool(peer.taken))
        node.discovery = Discovery()
        await driver.run("exo's look at its peers", node.update_peers())
        # An engine of whole models needs nobody's layers.
        if any(part.dtype.kind == "f" for part in peer.taken) and not await heard.within():
            yield "a node has left the cluster, and the answer that needed it never ends"


class EX906(Check):
    "Hidden states that nobody can use are refused"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
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


class EX911(Check):
    "Clients see whole characters, and no closing mark"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """exo decodes each token by itself and shows the one that ends (chatgpt_api.py:64-104): so
        half a character is a replacement character, and "<|im_end|>" is part of the answer. Wrap
        `generate_completion`, and give what is new of all ids so far, without the last."""
        await driver.one_node()
        driver.make()
        for what, text in (("the closing mark", "ok"), ("half characters", "\u65e5 \U0001f642")):
            shown = shown_text(driver, [*text.encode(), 256])
            if shown != text:
                yield f"a client sees {what}: {shown!r}, not {text!r}"


def shown_text(driver: Driver, ids: list[int]) -> str:
    """What exo's API streams of an answer whose tokens are bytes; 256 is the end."""

    def decode(ids: Any, **_: Any) -> str:
        known = [i for i in ids if i < 256]
        return bytes(known).decode("utf-8", "replace") + "<end>" * (len(ids) - len(known))

    tokenizer = SimpleNamespace(decode=decode, encode=lambda _: [1], eos_token_id=256)
    chat, shown = SimpleNamespace(model=driver.first_model), ""
    api, request_id = driver.exo.load(host.API), driver.request_id()
    for n, token in enumerate(ids, 1):
        finish = "stop" if n == len(ids) else None
        given = (chat, tokenizer, "", request_id, [token], True, finish, "chat.completion")
        shown += api.generate_completion(*given)["choices"][0]["delta"]["content"]
    return shown


class EX912(Check):
    "A first step that fails elsewhere is an error to the client"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """exo's API answers HTTP 200 once the node has taken the prompt (chatgpt_api.py:384), when
        another node has not had its part of the first step. Wrap `Node.process_prompt`: let it wait
        for the first token, and raise what has ended the answer."""
        driver.shards(2)
        _, answer = await ask_api(driver, await make_node(driver, Peer()))
        done, _ = await asyncio.wait({answer}, timeout=SECONDS)
        if not done or answer.result().status < 400:
            answer.cancel()
            yield "the first step fails on another node, and the client gets HTTP 200"


class EX913(Check):
    "The answer of a client that goes away ends"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """Nobody tells exo's node that a connection is closed: the answer runs on to its limit, by
        default 10,000 tokens, and the device is busy with it. Wrap
        `ChatGPTAPI.handle_post_chat_completions`, look at `request.transport` meanwhile, and end
        the answer."""
        node = await make_node(driver)
        async with held(driver, node) as (client, heard):
            client.closed = True
            await heard.within(1.0)
            before = len(heard.ids)
        if len(heard.ids) > before + 1:
            yield "a client has gone away, and its answer goes on"


class EX914(Check):
    "The end of the node ends its answers"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """exo's shutdown cancels every task and closes no engine (helpers.py:329, main.py:320): the
        clients' connections break, and a device keeps what it has. Wrap `shutdown` of `exo.main`:
        end the answers in flight, then close the device."""
        main, kept = ModuleType("exo.main"), sys.modules.get("exo.main")
        main.__dict__["shutdown"] = _shutdown
        sys.modules["exo.main"] = main  # importing exo's own would start a node
        try:
            node = await make_node(driver)
            async with held(driver, node) as (_, heard):
                server, loop = SimpleNamespace(node=node), asyncio.get_running_loop()
                stop = main.__dict__["shutdown"]("SIGTERM", loop, server)
                await driver.run("exo's shutdown()", stop)
                if not await heard.within(1.0):
                    yield "exo is told to stop, and the answer in flight is not ended"
        finally:
            del sys.modules["exo.main"]
            sys.modules.update({"exo.main": kept} if kept else {})


async def _shutdown(signal: Any, loop: Any, server: Any) -> None:
    return


class EX920(Check):
    "An exo without the faults is left alone"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """A newer exo may end failed answers itself, and show whole text. A mend that does it again
        ends them twice, and what comes second can fall on another request. Look whether the answer
        has ended already: `node.buffered_token_output[request_id][1]`."""
        await driver.one_node()
        with driver.exo.without_faults():
            answers = [heard async for heard, _ in failing(driver, 2)]
            if driver.device.layers > 1:
                answers.append(await start(driver, await make_node(driver, Peer())))
            for heard in answers:
                await heard.within()
                await asyncio.sleep(0.1)
                if heard.ends != 1:
                    yield f"an exo that ends failed answers itself ends them {heard.ends} times"
            if (shown := shown_text(driver, [*b"a", 256])) != "a":
                yield f"an exo that shows whole text shows {shown!r}, not 'a'"


class EX952(Check):
    "Nothing is written to stdout"

    @staticmethod
    def check() -> Iterator[str]:
        """stdout belongs to exo: `exo run` prints its answer there (main.py:254), and the terminal
        view is drawn over it. Use `logging`."""
        yield from ()  # the parent has read it


class EX953(Check):
    "The engine's module can be imported twice"

    @staticmethod
    def check(report: Report, engines: dict[str, Any]) -> Iterator[str]:
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
