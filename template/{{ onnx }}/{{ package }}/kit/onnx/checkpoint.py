"""Layers of a checkpoint as a session, and the requests that run through it."""

import contextlib
import ctypes
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import helper

from ..core.contract import Array, Layers
from ..llama.config import CheckpointError, Config
from ..llama.weights import Checkpoint
from . import graph, matrices
from .graph import Kind
from .kept import kept_for
from .plan import Plan, cores
from .providers import Provider, ProviderError, session
from .room import Room, needed
from .tensorrt import profiles

BLOCK = 256  # a long prompt runs in blocks, so that its scores need [H, BLOCK, T], not [H, T, T]


def kind_of(precision: str, provider: Provider) -> Kind:
    """How the graph computes. Raises ProviderError."""
    if precision == "float32" and provider.half:
        raise ProviderError(f"{provider.name}'s attention has no float32: take float16, int8, int4")
    if precision == "float16" and not provider.half:
        raise ProviderError(
            f"{provider.name} computes float16 with float32 between, and then two shards don't "
            "give what one gives: take float32, int8 or int4"
        )
    usual = "float16" if provider.half else "float32"
    bits = {"float32": 32, "float16": 16, "int8": 8, "int4": 4}[precision or usual]
    return Kind(bits, provider.half)


class CheckpointLayers:
    """A session of some layers, and the embedding where the first is among them."""

    def __init__(
        self, layers: Layers, folder: Path, plan: Plan, provider: Provider, build: Any = graph.build
    ) -> None:
        self.config = c = Config.from_folder(folder)
        if c.layers != layers.total:
            raise CheckpointError(
                f"the checkpoint in {folder} has {c.layers} layers, but the model card of "
                f"{layers.model} says {layers.total}: correct TABLE in models.py"
            )
        self.layers, self.provider = layers, provider
        self.kind = kind_of(plan.precision, provider)
        self.embedding = None
        if layers.embeds:
            matrix = (c.vocab_size, c.hidden_size)
            self.embedding = Checkpoint(folder).rows("model.embed_tokens.weight", matrix)
        model = build(c, layers.first, layers.last, self.kind)
        self.block, self.context = BLOCK, c.context_length
        given = self._given(folder, plan)
        self.size = weights_size(model)
        options = session_options(plan.threads)
        options.add_external_initializers(list(given), list(given.values()))
        shapes = {value.name: _shape(value) for value in model.graph.input}
        most = (1, BLOCK, BLOCK), (1, 1024, c.context_length)
        lengths = profiles(shapes, {"S": most[0], "room": most[1]})
        self.session = session(model.SerializeToString(), options, provider, lengths)
        # ONNX Runtime has copied what it was given; before now, dropping it would be a crash.
        given.clear()
        give_back()

    def _given(self, folder: Path, plan: Plan) -> dict[str, Any]:
        """The weights by their names in the graph."""
        kept = None
        if self.kind.bits < 16:
            kept = kept_for(folder, f"int{self.kind.bits}{'-half' if self.kind.half else ''}")
        made = matrices.weights(
            folder,
            self.config,
            self.layers.first,
            self.layers.last,
            self.kind,
            plan.threads or cores(),
            kept,
        )
        return {name: ort.OrtValue.ortvalue_from_numpy(numbers) for name, numbers in made}

    def request(self) -> "Request":
        """A new request."""
        return Request(self)


class Request:
    """One request's keys and values, on the device; the session reads and writes them there."""

    def __init__(self, owner: CheckpointLayers) -> None:
        self._owner = owner
        c = owner.config
        numbers = range(owner.layers.first, owner.layers.last + 1)
        names = [f"{what}.{n}" for n in numbers for what in ("keys", "values")]
        kind = np.float16 if owner.kind.half else np.float32
        self._room = Room(names, (c.kv_heads, c.head_dim), kind, owner.provider.memory)
        self._length = 0
        self._binding: Any = None

    @property
    def size(self) -> int:
        """The bytes of its keys and values."""
        return self._room.size

    def step(self, x: Array) -> Array:
        """Ids (1, S) or hidden states (1, S, D) to hidden states, or logits (1, 1, V)."""
        owner = self._owner
        total = needed(self._length, x.shape[1], owner.config.context_length)
        if self._room.reach(total, self._length, owner.config.context_length):
            self._bind()
        if owner.embedding is not None:
            x = owner.embedding[x]  # [V, D] at [1, S] -> [1, S, D]
        blocks = [self._run(x[:, n : n + BLOCK]) for n in range(0, x.shape[1], BLOCK)]
        if owner.layers.ends or len(blocks) == 1:
            return blocks[-1]
        return np.concatenate(blocks, axis=1)

    def _bind(self) -> None:
        """Keys and values are read and written in place: bound once for each room."""
        self._binding = self._owner.session.io_binding()
        for name, value in self._room.values.items():
            self._binding.bind_ortvalue_input(name, value)
            self._binding.bind_ortvalue_output(f"new_{name}", value)

    def _run(self, x: Array) -> Array:
        total = self._length + x.shape[1]
        self._binding.bind_cpu_input("x", np.ascontiguousarray(x, np.float32))
        self._binding.bind_cpu_input("newest", np.array([total - 1], np.int32))
        self._binding.bind_cpu_input("total", np.array(total, np.int32))
        self._binding.bind_output("y", "cpu")
        self._owner.session.run_with_iobinding(self._binding)
        self._length = total
        found: Array = self._binding.get_outputs()[-1].numpy()
        return found


def session_options(threads: int | None) -> Any:
    """What is the same for every session: memory doesn't grow with each new length."""
    options = ort.SessionOptions()
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    return options


def give_back() -> None:
    """Let glibc return what was freed to the system."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # musl has none
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def weights_size(model: Any) -> int:
    """The bytes of a model's weights, wherever they lie."""
    return sum(math.prod(w.dims) * bytes_of(w.data_type) for w in model.graph.initializer)


def bytes_of(kind: int) -> int:
    """The bytes of one number."""
    return int(helper.tensor_dtype_to_np_dtype(kind).itemsize)


def _shape(value: Any) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
