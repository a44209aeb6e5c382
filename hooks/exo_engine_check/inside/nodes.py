"""Nodes of exo around a plugin's engine: where exo's faults are, and the plugin's mends."""

import asyncio
from typing import Any

from .core import NotRunError
from .drive import Driver

SECONDS = 4.0  # within which an answer has to end


class Parts:
    """Splits a model's layers evenly over nodes of these names."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def partition(self, topology: Any) -> list[Any]:
        from exo.topology.partitioning_strategy import Partition  # type: ignore[import-not-found]

        count = len(self.names)
        return [Partition(name, n / count, (n + 1) / count) for n, name in enumerate(self.names)]


class Gone:
    """A peer that is there no more, and the discovery that finds nobody."""

    def id(self) -> str:
        return "gone"

    def addr(self) -> str:
        return "127.0.0.1:9"

    async def is_connected(self) -> bool:
        return False

    async def discover_peers(self, wait_for_peers: int = 0) -> list[Any]:
        return []

    async def send_tensor(self, *_: Any, **__: Any) -> None:
        raise OSError("connection refused")

    async def send_result(self, *_: Any, **__: Any) -> None:
        raise OSError("connection refused")

    async def send_opaque_status(self, *_: Any, **__: Any) -> None:
        raise OSError("connection refused")

    async def disconnect(self) -> None:
        return


class Heard:
    """What a node tells its listeners of one request."""

    def __init__(self, node: Any, request_id: str) -> None:
        self.request_id, self.ids, self.ends = request_id, list[int](), 0
        self.ended = asyncio.Event()
        self.steps = 1
        self.failed = False  # a step has raised
        node.on_token.register(f"check-{request_id}").on_next(self.hear)

    def hear(self, request_id: str, ids: list[int], finished: bool) -> None:
        if request_id == self.request_id:
            self.ids += ids
            if finished:
                self.ends += 1
                self.ended.set()

    async def within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self.ended.wait(), seconds)
        except TimeoutError:
            return False
        return True


async def make_node(driver: Driver, engine: Any, *others: str, limit: int = 100) -> Any:
    """A node of exo's, connected to nothing; the others have the later layers."""
    await driver.one_node()
    exo = driver.exo
    if exo.node is None:
        raise NotRunError(exo.no_node)
    downloader = driver.devices.downloader(exo)
    parts = Parts("node", *others)
    node = exo.node("node", None, engine, None, downloader, parts, limit)
    node.peers = [Gone() for _ in others]
    return node


def asked(driver: Driver) -> Any:
    """The first layer alone, as exo's API asks for a model (models.py:263)."""
    whole = driver.shards(1)[0]
    return type(whole)(whole.model_id, 0, 0, whole.n_layers)


async def start(driver: Driver, node: Any, request_id: str) -> Heard:
    """Ask a node for an answer, as exo's API does."""
    heard = Heard(node, request_id)
    await node.process_prompt(asked(driver), driver.device.prompt, request_id, {})
    return heard


def broken_tokens(driver: Driver) -> Any:
    """Ids that no vocabulary has: what a step fails on where the device can't be made to."""
    return driver.np.full((1, 1), 2**40, dtype=driver.np.int64)


async def fails_at(driver: Driver, node: Any, step: int, fail: Any) -> Heard:
    """An answer whose device fails at a later step; exo itself starts each step."""
    heard = Heard(node, driver.request_id())
    forward = node.process_tensor

    async def process_tensor(base: Any, tensor: Any, *rest: Any, **named: Any) -> Any:
        heard.steps += 1
        if heard.steps == step and fail is not None:
            fail()
        elif heard.steps >= step and fail is None:
            tensor = broken_tokens(driver)
        return await forward(base, tensor, *rest, **named)

    step_of_engine = node.inference_engine.infer_tensor

    async def infer_tensor(*given: Any, **named: Any) -> Any:
        try:
            return await step_of_engine(*given, **named)
        except Exception:
            heard.failed = True
            raise

    node.process_tensor, node.inference_engine.infer_tensor = process_tensor, infer_tensor
    await node.process_prompt(asked(driver), driver.device.prompt, heard.request_id, {})
    return heard
