"""Nodes of exo that reach each other without a network, as a cluster's do."""

import asyncio
from typing import Any

from exo_order import wire


class Halves:
    """Gives every node of the topology as many layers."""

    def partition(self, topology: Any) -> list[Any]:
        """One partition a node, in the order of their names."""
        from exo.topology.partitioning_strategy import Partition

        names = sorted(topology or ["node0"])
        return [Partition(n, i / len(names), (i + 1) / len(names)) for i, n in enumerate(names)]


class PeerError(Exception):
    """What gRPC raises: the other node's error, in words around it."""

    def __init__(self, text: str) -> None:
        super().__init__("<AioRpcError of RPC that terminated with: status = StatusCode.UNKNOWN>")
        self.text = text

    def details(self) -> str:
        """gRPC's words."""
        return self.text


class Peer:
    """Another node; `down` as when its process is gone."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.down = False

    def id(self) -> str:
        """The node's name."""
        return str(self.node.id)

    def addr(self) -> str:
        """Where it is."""
        return "127.0.0.1:1"

    def description(self) -> str:
        """How it was found."""
        return "test"

    async def is_connected(self) -> bool:
        """Whether it is there."""
        return not self.down

    async def connect(self) -> None:
        """Nothing to do."""

    async def disconnect(self) -> None:
        """Nothing to do."""

    async def health_check(self) -> bool:
        """Whether it answers."""
        return not self.down

    async def _reach(self, work: Any) -> Any:
        if self.down:
            work.close()
            raise PeerError("failed to connect to all addresses")
        try:
            return await work
        except Exception as error:
            raise PeerError(f"Unexpected <class '{type(error).__name__}'>: {error}") from error

    async def send_prompt(self, shard: Any, prompt: str, **named: Any) -> None:
        """A prompt for the first layers."""
        named["inference_state"] = {}
        await self._reach(self.node.process_prompt(shard, prompt, **named))

    async def send_tensor(self, shard: Any, tensor: Any, **named: Any) -> None:
        """What the layers before have made."""
        named["inference_state"] = {}
        await self._reach(self.node.process_tensor(shard, wire(tensor), **named))

    async def send_result(self, request_id: str, result: list[int], finished: bool) -> None:
        """New ids of an answer."""
        if self.down:
            raise PeerError("failed to connect to all addresses")
        self.node.on_token.trigger_all(request_id, result, finished)

    async def send_opaque_status(self, request_id: str, status: str) -> None:
        """Whatever a node tells."""
        if self.down:
            raise PeerError("failed to connect to all addresses")
        self.node.on_opaque_status.trigger_all(request_id, status)


class Discovery:
    """Finds the peers that it is given."""

    def __init__(self) -> None:
        self.others: list[Peer] = []

    async def discover_peers(self, wait_for_peers: int = 0) -> list[Peer]:
        """Who is there."""
        await asyncio.sleep(0)
        return list(self.others)


class Server:
    """A node's server, as exo's shutdown knows it."""

    def __init__(self, node: Any) -> None:
        self.node = node


def make_ring(node_module: Any, engines: list[Any], downloader: Any, most: int = 100) -> list[Any]:
    """One node an engine; each knows all others."""
    nodes = []
    for n, engine in enumerate(engines):
        discovery = Discovery()
        arguments = (f"node{n}", None, engine, discovery, downloader, Halves(), most)
        nodes.append(node_module.Node(*arguments))
    names = [node.id for node in nodes]
    for node in nodes:
        node.discovery.others = [Peer(other) for other in nodes if other is not node]
        node.peers = list(node.discovery.others)
        node.topology = names
        node.collect_topology = lambda _, node=node, **__: known_ring(node)
    return nodes


async def known_ring(node: Any) -> Any:
    """The ring that a node knows of."""
    node.topology = [node.id, *(peer.id() for peer in node.peers)]
    return node.topology


def model_shard(engine: Any, model_id: str) -> Any:
    """What exo's API asks a node with."""
    from exo.models import build_base_shard

    return build_base_shard(model_id, type(engine).__name__)
