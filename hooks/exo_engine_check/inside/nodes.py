"""Nodes of exo around a plugin's engine, and clients of their API: where exo's faults are."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from . import host
from .check import NotRunError
from .device import Device
from .driver import Driver
from .patience import comes


class Parts:
    """Splits a model's layers evenly over a node and its peers."""

    node: Any
    is_last = False

    def partition(self, topology: Any) -> list[Any]:
        from exo.topology.partitioning_strategy import Partition  # type: ignore[import-not-found]

        names = ["node", *(peer.id() for peer in self.node.peers)]
        names = names[:: -1 if self.is_last else 1]
        return [Partition(n, i / len(names), (i + 1) / len(names)) for i, n in enumerate(names)]


class Peer:
    """A node that can't be reached, or that takes everything and says nothing."""

    def __init__(self, reached: bool = False) -> None:
        self.reached, self.tensors = reached, list[Any]()  # what it was sent

    def id(self) -> str:
        return "other"

    async def is_connected(self, *_: Any, **__: Any) -> bool:
        return self.reached

    addr = description = id
    health_check = connect = disconnect = is_connected

    async def take(self, *arguments: Any, **_: Any) -> None:
        if not self.reached:
            raise OSError("connection refused")
        self.tensors += [part for part in arguments if hasattr(part, "dtype")]

    send_prompt = send_tensor = send_result = send_opaque_status = take


def discovery(*peers: Peer) -> Any:
    """A discovery that finds these."""

    async def discover_peers(wait_for_peers: int = 0) -> list[Peer]:
        return list(peers)

    return SimpleNamespace(discover_peers=discover_peers)


class Listener:
    """Listens to a node for the tokens of one request, or of the only one."""

    def __init__(self, driver: Driver, node: Any, request_id: str = "") -> None:
        self.seconds = driver.seconds
        self.request_id, self.ids, self.ends = request_id, list[int](), 0
        self.started, self.ended = asyncio.Event(), asyncio.Event()
        node.on_token.register(f"check-{id(self)}").on_next(self.take)

    def take(self, request_id: str, ids: list[int], finished: bool) -> None:
        if request_id == self.request_id or not self.request_id:
            self.ids += ids
            self.started.set()
            if finished:
                self.ends += 1
                self.ended.set()

    async def within(self, seconds: float = 0, event: asyncio.Event | None = None) -> bool:
        """Whether the answer ends, or an event comes, in so many seconds."""
        wait = (event or self.ended).wait()
        return await comes(wait, seconds or self.seconds, lambda: len(self.ids))


async def make_node(driver: Driver, *peers: Peer, limit: int = 100, is_last: bool = False) -> Any:
    """A node of exo's with an engine of its own; its peers have the later layers, or the others."""
    await driver.nodes(1)
    node_class, parts = driver.exo.load(host.NODE).Node, Parts()
    engine = driver.make()
    node = node_class("node", None, engine, discovery(), engine.shard_downloader, parts, limit)
    node.peers, parts.node, parts.is_last = list(peers), node, is_last
    node.collect_topology = Peer().connect  # the real one asks the peers
    return node


async def start(driver: Driver, node: Any, prompt: str = "") -> Listener:
    """Ask a node for an answer, as exo's API does: with the first layer alone (models.py:263)."""
    listener, whole = Listener(driver, node, driver.request_id()), driver.shards(1)[0]
    first = type(whole)(whole.model_id, 0, 0, whole.n_layers)
    await node.process_prompt(first, prompt or driver.device.prompt, listener.request_id, {})
    return listener


def before_step(node: Any, step: int, do: Callable[[Any], Awaitable[Any]]) -> None:
    """Let something happen before a later step, which gets what it gives."""
    forward, steps = node.process_tensor, [1]

    async def process_tensor(base: Any, tensor: Any, *rest: Any, **named: Any) -> Any:
        steps[0] += 1
        if steps[0] == step:
            tensor = await do(tensor)
        return await forward(base, tensor, *rest, **named)

    node.process_tensor = process_tensor


async def failing(driver: Driver, step: int) -> AsyncIterator[tuple[Listener, bool]]:
    """An answer whose device fails at a later step, and whether it has ended."""
    for _ in range(3):  # on a busy machine a device may have given all before it fails
        with driver.new_device() as device:
            node = await make_node(driver)
            listener, failed = await _failed(driver, device, node, step)
            ended = listener.ended.is_set()
            if failed or not ended:
                yield listener, ended
                return
    if step == 2:  # else the device's answers are short
        raise NotRunError(
            "no step fails: the engine takes any ids, and the device has no fail() that is felt in "
            "the middle of an answer (docs/checking.md)"
        )


async def _failed(driver: Driver, device: Device, node: Any, step: int) -> tuple[Listener, bool]:
    step_of_engine, failed = node.inference_engine.infer_tensor, list[Exception]()

    async def fail(tensor: Any) -> Any:
        if device.fail is None:
            return driver.broken_tokens()
        device.fail()
        return tensor

    async def infer_tensor(*arguments: Any, **named: Any) -> Any:
        try:
            return await step_of_engine(*arguments, **named)
        except Exception as error:
            failed.append(error)
            raise

    before_step(node, step, fail)
    node.inference_engine.infer_tensor = infer_tensor
    listener = await start(driver, node)
    await listener.within()
    return listener, bool(failed)


class Client:
    """A request for a stream to exo's API; `closed` is its connection."""

    def __init__(self, model: str) -> None:
        message = {"role": "user", "content": "Hello"}
        self.body = {"model": model, "stream": True, "messages": [message]}
        self.closed, self.events = False, list[str]()
        self.transport = SimpleNamespace(is_closing=lambda: self.closed)

    async def json(self) -> Any:
        return self.body

    def write(self, event: str) -> None:
        if self.closed:
            raise ConnectionResetError("cannot write to closing transport")
        self.events.append(event)


class Stream:
    """What exo's own API answers a client with, in place of its web server's."""

    def __init__(self, status: int = 200, **_: Any) -> None:
        self.status = status

    async def prepare(self, client: Client) -> None:
        self.client = client

    async def write(self, event: bytes) -> None:
        self.client.write(event.decode())

    async def write_eof(self) -> None:
        return


async def ask_api(driver: Driver, node: Any) -> tuple[Client, "asyncio.Task[Any]"]:
    """Ask exo's API, and the answer that is under way."""
    api, tokenizer = driver.exo.load(host.API), (await driver.first_engine()).tokenizer
    client, name = Client(driver.device.model), type(node.inference_engine).__name__
    if not hasattr(api, "web"):
        made = api.ChatGPTAPI(node, name, tokenizer)  # the stand-in's, whose model is no folder
    else:
        api.web = SimpleNamespace(**{**vars(api.web), "StreamResponse": Stream})
        api.resolve_tokenizer, api.build_prompt = _giving(tokenizer), lambda *_: "Hello"
        made = api.ChatGPTAPI(node, name)
    return client, asyncio.ensure_future(made.handle_post_chat_completions(client))


def _giving(tokenizer: Any) -> Callable[..., Awaitable[Any]]:
    async def resolve_tokenizer(*_: Any) -> Any:
        return tokenizer

    return resolve_tokenizer


@contextlib.asynccontextmanager
async def held(driver: Driver, node: Any) -> AsyncIterator[tuple[Client, Listener]]:
    """A client's answer that is held before its second step; it goes on after the block."""
    listener, go = Listener(driver, node), asyncio.Event()

    async def hold(tensor: Any) -> Any:
        await go.wait()
        return tensor

    before_step(node, 2, hold)
    client, answer = await ask_api(driver, node)
    try:
        if not await listener.within(8, listener.started):
            raise NotRunError("a client's answer does not begin")
        yield client, listener
    finally:
        go.set()
        await listener.within(0.2)
        answer.cancel()
