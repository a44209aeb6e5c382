"""A node: what exo does with an engine, step by step, and its faults."""

import asyncio
import json
import traceback
import uuid
from typing import Any

import numpy as np
from exo.download.shard_download import ShardDownloader
from exo.helpers import AsyncCallbackSystem
from exo.inference.inference_engine import Array, State, get_inference_engine
from exo.inference.shard import Shard
from exo.topology.partitioning_strategy import (
    Partition,
    PartitioningStrategy,
    map_partitions_to_shards,
)


class Node:
    """One node of a cluster. It forwards to itself or to `peers` (id, send_*)."""

    def __init__(
        self,
        _id: str,
        server: Any,
        inference_engine: Any,
        discovery: Any,
        shard_downloader: ShardDownloader,
        partitioning_strategy: PartitioningStrategy | None = None,
        max_generate_tokens: int = 1024,
        default_sample_temperature: float = 0.0,
        topology_viz: Any = None,
    ) -> None:
        self.id = _id
        self.server = server
        self.inference_engine = inference_engine
        self.discovery = discovery
        self.shard_downloader = shard_downloader
        self.partitioning_strategy = partitioning_strategy
        self.max_generate_tokens = max_generate_tokens
        self.default_sample_temperature = default_sample_temperature
        self.topology_viz = topology_viz
        self.topology: Any = None
        self.peers: list[Any] = []
        self.buffered_token_output: dict[str, tuple[list[int], bool]] = {}
        self.outstanding_requests: dict[str, str] = {}
        self.topology_inference_engines_pool: list[list[str]] = []
        self._on_token: AsyncCallbackSystem[str, Any] = AsyncCallbackSystem()
        self._on_opaque_status: AsyncCallbackSystem[str, Any] = AsyncCallbackSystem()
        self._on_opaque_status.register("node_status").on_next(self.on_node_status)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def on_token(self) -> AsyncCallbackSystem[str, Any]:
        """Where the API listens for tokens."""
        return self._on_token

    @property
    def on_opaque_status(self) -> AsyncCallbackSystem[str, Any]:
        """Where a node hears what other nodes, and itself, do."""
        return self._on_opaque_status

    def on_node_status(self, request_id: str, opaque_status: str) -> None:
        """Remember which engines a node says that it has."""
        status = json.loads(opaque_status)
        if status.get("type") == "supported_inference_engines":
            self.topology_inference_engines_pool.append(status.get("engines", []))

    # What a cluster does to an engine.

    async def update_peers(self, wait_for_peers: int = 0) -> bool:
        """Ask who is there. exo's fault: answers that needed another node wait for it."""
        peers = await self.discovery.discover_peers(wait_for_peers)
        changed = {peer.id() for peer in peers} != {peer.id() for peer in self.peers}
        self.peers = peers
        return changed

    async def collect_topology(self, visited: set[str], max_depth: int = 4) -> Any:
        """Who is in the ring, of those that this node knows."""
        self.topology = [self.id, *(peer.id() for peer in self.peers)]
        return self.topology

    def get_supported_inference_engines(self) -> list[str]:
        """Name engines; a plugin's own is never among them."""
        is_mlx = type(self.inference_engine).__name__ == "MLXDynamicShardInferenceEngine"
        return ["mlx", "tinygrad"] if is_mlx else ["tinygrad"]

    def get_topology_inference_engines(self) -> list[list[str]]:
        """Return what every node said."""
        return self.topology_inference_engines_pool

    async def broadcast_supported_engines(self, supported_engines_names: list[str]) -> None:
        """Tell every node, this one too."""
        message = {
            "type": "supported_inference_engines",
            "node_id": self.id,
            "engines": supported_engines_names,
        }
        await self.broadcast_opaque_status("", json.dumps(message))

    async def select_best_inference_engine(self) -> None:
        """Called when a peer joins or leaves. exo's fault: it replaces a plugin's engine."""
        if type(self.inference_engine).__name__ == "DummyInferenceEngine":
            return
        names = self.get_supported_inference_engines()
        await self.broadcast_supported_engines(names)
        if self.get_topology_inference_engines():
            self.inference_engine = get_inference_engine(names[0], self.shard_downloader)

    # One answer.

    async def process_prompt(
        self,
        base_shard: Shard,
        prompt: str,
        request_id: str | None = None,
        inference_state: State | None = None,
    ) -> None:
        """Start an answer, and tell the cluster that it starts."""
        status = {
            "type": "node_status",
            "node_id": self.id,
            "status": "start_process_prompt",
            "shard": self.get_current_shard(base_shard).to_dict(),
            "prompt": prompt,
        }
        self._later(self.broadcast_opaque_status(request_id or "", json.dumps(status)))
        await self._process_prompt(base_shard, prompt, request_id, inference_state)

    async def _process_prompt(
        self,
        base_shard: Shard,
        prompt: str,
        request_id: str | None = None,
        inference_state: State | None = None,
    ) -> Array | None:
        """Run the first step. An error goes up, to the API."""
        request_id = request_id or str(uuid.uuid4())
        shard = self.get_current_shard(base_shard)
        if not shard.is_first_layer():
            self.outstanding_requests[request_id] = "waiting"
            await self.forward_prompt(shard, prompt, request_id, 0, inference_state)
            return None
        self.outstanding_requests[request_id] = "processing"
        result, state = await self.inference_engine.infer_prompt(
            request_id, shard, prompt, inference_state
        )
        await self.process_inference_result(shard, result, request_id, state)
        return np.asarray(result)

    async def process_tensor(
        self,
        base_shard: Shard,
        tensor: Array,
        request_id: str | None = None,
        inference_state: State | None = None,
    ) -> None:
        """Run one later step."""
        shard = self.get_current_shard(base_shard)
        await self._process_tensor(shard, tensor, request_id, inference_state)

    async def _process_tensor(
        self,
        base_shard: Shard,
        tensor: Array,
        request_id: str | None = None,
        inference_state: State | None = None,
    ) -> Array | None:
        """Run one later step. exo's fault: an error is printed, and the client waits on."""
        request_id = request_id or str(uuid.uuid4())
        shard = self.get_current_shard(base_shard)
        try:
            self.outstanding_requests[request_id] = "processing"
            result, state = await self.inference_engine.infer_tensor(
                request_id, shard, tensor, inference_state
            )
            return await self.process_inference_result(shard, result, request_id, state)
        except Exception as error:
            self.outstanding_requests.pop(request_id)
            print(f"shard {shard} failed: {error}")
            traceback.print_exc()
            return None

    async def process_inference_result(
        self,
        shard: Shard,
        result: Array,
        request_id: str,
        inference_state: State | None = None,
    ) -> Array:
        """Sample where the last layer is, tell the token, and send the next step on its way."""
        ids, _ = self.buffered_token_output.setdefault(request_id, ([], False))
        finished = len(ids) >= self.max_generate_tokens
        forward = result
        if shard.is_last_layer() and not finished:
            engine = self.inference_engine
            token = await engine.sample(result, temp=self.default_sample_temperature)
            await engine.ensure_shard(shard)
            ids.append(token.item())
            ended = token.item() == engine.tokenizer.eos_token_id
            finished = ended or len(ids) >= self.max_generate_tokens
            forward = token.reshape(1, -1)
            self.trigger_on_token_callbacks(request_id, ids[-1:], finished)
            self._later(self.broadcast_result(request_id, ids[-1:], finished))
        if finished:
            self.buffered_token_output[request_id] = (ids, True)
            self.outstanding_requests.pop(request_id)
        else:
            self.outstanding_requests[request_id] = "waiting"
            following = self.get_partition_index(offset=1)
            self._later(self.forward_tensor(shard, forward, request_id, following, inference_state))
        return np.array(ids)

    async def forward_prompt(
        self,
        base_shard: Shard,
        prompt: str,
        request_id: str,
        target_index: int,
        inference_state: State | None = None,
    ) -> None:
        """Send a prompt to the node that has the layers of a partition."""
        shard = self.get_current_shard(base_shard, target_index)
        target = self._partitions()[target_index].node_id
        if target == self.id:
            await self.process_prompt(shard, prompt, request_id, inference_state)
        else:
            await self._peer(target).send_prompt(
                shard, prompt, request_id=request_id, inference_state=inference_state
            )

    async def forward_tensor(
        self,
        base_shard: Shard,
        tensor: Array,
        request_id: str,
        target_index: int,
        inference_state: State | None = None,
    ) -> None:
        """Send a tensor to the node that has the layers of a partition."""
        shard = self.get_current_shard(base_shard, target_index)
        target = self._partitions()[target_index].node_id
        if target == self.id:
            await self.process_tensor(shard, tensor, request_id, inference_state)
        else:
            await self._peer(target).send_tensor(
                shard, tensor, request_id=request_id, inference_state=inference_state
            )

    def trigger_on_token_callbacks(
        self, request_id: str, tokens: list[int], is_finished: bool
    ) -> None:
        """Tell this node's own listeners."""
        self.on_token.trigger_all(request_id, tokens, is_finished)

    async def broadcast_result(self, request_id: str, result: list[int], is_finished: bool) -> None:
        """Tell the other nodes."""
        sent = [peer.send_result(request_id, result, is_finished) for peer in self.peers]
        await asyncio.gather(*sent, return_exceptions=True)

    async def broadcast_opaque_status(self, request_id: str, status: str) -> None:
        """Tell the other nodes, and this one."""
        sent = [peer.send_opaque_status(request_id, status) for peer in self.peers]
        await asyncio.gather(*sent, return_exceptions=True)
        self.on_opaque_status.trigger_all(request_id, status)

    # Who has which layers.

    def get_partition_index(self, offset: int = 0) -> int:
        """Return this node's place among the partitions, or one `offset` places on."""
        nodes = [part.node_id for part in self._partitions()]
        return (nodes.index(self.id) + offset) % len(nodes)

    def get_current_shard(self, base_shard: Shard, index: int | None = None) -> Shard:
        """Return the layers of this node, or of the node at `index`."""
        place = self.get_partition_index() if index is None else index
        shards = map_partitions_to_shards(
            self._partitions(), base_shard.n_layers, base_shard.model_id
        )
        return shards[place]

    def _partitions(self) -> list[Partition]:
        if self.partitioning_strategy is None:
            return [Partition(self.id, 0.0, 1.0)]
        return self.partitioning_strategy.partition(self.topology)

    def _peer(self, node_id: str) -> Any:
        return next(peer for peer in self.peers if peer.id() == node_id)

    def _later(self, work: Any) -> None:
        """Run `work` on its own, as exo does; the reference keeps the task alive."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
