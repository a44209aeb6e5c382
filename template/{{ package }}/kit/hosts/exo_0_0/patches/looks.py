"""Whether exo still has a fault: its own function runs on something that looks like a node.

A look gets exo's function, unwrapped, and its module. Where it fails, the fault can't be seen.
"""

import asyncio
import signal
from collections import defaultdict
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from .....names import ENGINE_NAME, PACKAGE

SECONDS = 5.0  # an exo that waits for something here does otherwise than the one that is known
TURNS = 100  # of the loop: more than a look at a ring without peers takes

Function = Callable[..., Any]
Look = Callable[[Function, ModuleType], bool]


def result_of(work: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine of exo's gives; what it prints goes nowhere. Raises TimeoutError.

    It runs on a loop of its own: exo cancels every task of a loop that it ends.
    """

    async def bounded() -> Any:
        async with asyncio.timeout(SECONDS):
            return await work

    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, bounded()).result()


async def _nothing(*_: Any, **__: Any) -> None:
    return None


def _node(ended: list[Any], **more: Any) -> Any:
    """A node that is alone; ended: what its clients hear of their answers."""

    async def broadcast(*result: Any) -> None:
        ended.append(result)

    members: dict[str, Any] = {
        "id": PACKAGE,
        "peers": [],
        "topology": SimpleNamespace(active_node_id=None),
        "topology_viz": None,
        "device_capabilities": None,
        "outstanding_requests": {},
        "buffered_token_output": {},
        "get_current_shard": lambda shard: shard,
        "trigger_on_token_callbacks": lambda *result: ended.append(result),
        "broadcast_result": broadcast,
        "broadcast_supported_engines": _nothing,
    }
    return SimpleNamespace(**members | more)


def _peer(name: str, **more: Any) -> Any:
    """Another node, which is connected to nobody and doesn't answer."""
    answers = {"id": name, "addr": "", "description": "", "device_capabilities": None}
    members: dict[str, Any] = {each: lambda value=value: value for each, value in answers.items()}
    for call in ("is_connected", "connect", "disconnect", "health_check"):
        members[call] = _nothing
    return SimpleNamespace(**members | more)


def swaps_engines(original: Function, module: ModuleType) -> bool:
    """Whether a plugin's engine is gone after the cluster has changed."""
    loaded: list[str] = []
    node = _node([], inference_engine=SimpleNamespace(), shard_downloader=None)
    names = module.Node.get_supported_inference_engines
    node.get_supported_inference_engines = lambda: names(node)
    node.get_topology_inference_engines = lambda: [["any"]]
    loader = module.get_inference_engine
    setattr(module, "get_inference_engine", lambda name, _: loaded.append(name))  # noqa: B010 - typed
    try:
        result_of(original(node))
    finally:
        setattr(module, "get_inference_engine", loader)  # noqa: B010 - a module has no such type
    return bool(loaded) and loaded != [ENGINE_NAME]


def drops_later_errors(original: Function, _: ModuleType) -> bool:
    """Whether an engine's error at a later step is dropped."""
    ended: list[Any] = []

    async def fails(*_: Any) -> Any:
        raise RuntimeError("looking whether exo drops errors")

    node = _node(ended, inference_engine=SimpleNamespace(infer_tensor=fails))
    try:
        result_of(original(node, None, np.zeros((1, 1)), "request"))
    except RuntimeError:
        return False
    return not ended


def drops_errors_on_the_way(original: Function, _: ModuleType) -> bool:
    """Whether an error on the way to the next node ends with the task that it is in."""
    ended: list[Any] = []

    def fails(_: Any) -> Any:
        raise ValueError("looking whether exo drops errors")

    node = _node(ended, partitioning_strategy=SimpleNamespace(partition=fails))
    try:
        result_of(original(node, None, None, "request", 0))
    except ValueError:
        return True
    return not ended


def takes_other_layers(original: Function, _: ModuleType) -> bool:
    """Whether a node takes a step for layers that it doesn't have."""
    steps: list[Any] = []

    async def process(shard: Any, *_: Any) -> None:
        steps.append(shard)

    mine = SimpleNamespace(start_layer=0, end_layer=0)
    node = _node([], get_current_shard=lambda _: mine, _process_tensor=process)
    result_of(original(node, SimpleNamespace(start_layer=1, end_layer=1), None, "request"))
    return bool(steps)


def leaves_orphans(original: Function, _: ModuleType) -> bool:
    """Whether a peer that left ends no answer, or one that says nothing is taken in."""
    ended: list[Any] = []

    async def discover_peers(*_: Any) -> list[Any]:
        return [_peer("silent")]

    discovery = SimpleNamespace(discover_peers=discover_peers)
    node = _node(ended, discovery=discovery, peers=[_peer("left")])
    node.outstanding_requests["request"] = "waiting"
    result_of(original(node))
    return not ended or bool(node.peers)


def overtakes(original: Function, _: ModuleType) -> bool:
    """Whether an older picture of the ring, from a slow peer, replaces a newer one."""

    async def answer_late(*_: Any, **__: Any) -> Any:
        for _turn in range(TURNS):
            await asyncio.sleep(0)
        return SimpleNamespace(nodes={}, peer_graph={})

    node = _node([], peers=[_peer("left", collect_topology=answer_late)])

    async def both() -> None:
        older = asyncio.ensure_future(original(node, set()))
        await asyncio.sleep(0)
        node.peers = []
        await original(node, set())
        await older

    result_of(both())
    return set(node.topology.nodes) != {node.id}


def closes_no_engine(original: Function, _: ModuleType) -> bool:
    """Whether the end of a node never reaches its engine."""
    closed: list[Any] = []

    async def close(*_: Any) -> None:
        closed.append(True)

    node = _node([], inference_engine=SimpleNamespace(close=close))
    server = SimpleNamespace(node=node, stop=_nothing)
    result_of(original(signal.SIGTERM, None, server))
    return not closed


def shows_halves(original: Function, _: ModuleType) -> bool:
    """Whether the closing mark is shown, or half a character."""
    words = {1: "x", 2: "<end>", 3: "\ufffd", 4: "\ufffd"}

    def decode(ids: Any, **_: Any) -> str:
        return "".join(words[i] for i in ids).replace("\ufffd\ufffd", "\u00e9")

    tokenizer = SimpleNamespace(decode=decode, encode=lambda _: [1], eos_token_id=2)

    def content(ids: list[int], finish: str | None) -> str:
        chat = SimpleNamespace(model="any")
        kind = "chat.completion"
        event = original(chat, tokenizer, "", f"{PACKAGE}-looks", ids, True, finish, kind)
        return str(event["choices"][0]["delta"]["content"])

    return content([3], None) + content([4], None) + content([1, 2], "stop") != "\u00e9x"


def keeps_unread_tokens(original: Function, _: ModuleType) -> bool:
    """Whether the tokens of an answer that no client of this node's reads are kept."""
    queues: defaultdict[str, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)
    api = SimpleNamespace(node=_node([]), token_queues=queues)
    result_of(original(api, "request", [1], True))
    return bool(queues)
