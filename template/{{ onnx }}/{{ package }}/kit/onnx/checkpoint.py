"""Layers of a checkpoint as a session, and the requests that run through it."""

import contextlib
import ctypes
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import helper

from ..contract import Array, Layers
from ..ids import refuse_unknown
from ..llama.config import Config
from ..llama.refusals import refuse_width
from ..llama.weights import EMBEDDING, Checkpoint, open_checkpoint
from ..onnx import graph, matrices
from ..repository.facts import RepositoryError
from .batch import Result, apart, together
from .graph import Kind
from .kv_cache import Block, Form, Slot, needed
from .plan import Plan, cores
from .providers import Provider, ProviderError, session
from .tensorrt import profiles
from .weight_cache import Forms, weight_cache_for

BLOCK = 128  # of a long prompt: others go on in between, and scores take [H, BLOCK, T]


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
        tensors, c = open_checkpoint(folder, Config.from_folder(folder))
        if c.rope.kind == "dynamic":  # a table of angles can't follow the length of a request
            c = replace(c, context_length=c.rope.original_context)
        self.config = c
        if c.layers != layers.total:
            raise RepositoryError(
                f"the checkpoint in {folder} has {c.layers} layers, but the model card of "
                f"{layers.model} says {layers.total}: correct MODELS in models.py"
            )
        self.layers, self.provider = layers, provider
        self.kind = kind_of(plan.precision, provider)
        self.embedding = None
        if layers.embeds:
            matrix = (c.vocab_size, c.hidden_size)
            self.embedding = tensors.rows(EMBEDDING, matrix)
        model = build(c, layers.first, layers.last, self.kind)
        self.block, self.context = BLOCK, c.context_length
        self.vocabulary, self.files = c.vocab_size, tensors.watched()
        inputs = self._inputs(folder, tensors, plan, model)
        self.size = weights_size(model)
        options = session_options(plan.threads)
        options.add_external_initializers(list(inputs), list(inputs.values()))
        shapes = {value.name: _shape(value) for value in model.graph.input}
        most = (1, BLOCK, BLOCK), (1, 1024, c.context_length)
        lengths = profiles(shapes, {"B": (1, 1, 1), "S": most[0], "room": most[1]})
        self.session = session(model.SerializeToString(), options, provider, lengths)
        # ONNX Runtime has copied what it was given; before now, dropping it would be a crash.
        inputs.clear()
        give_back()
        numbers = range(layers.first, layers.last + 1)
        names = tuple(f"{what}.{n}" for n in numbers for what in ("keys", "values"))
        kind = np.float16 if self.kind.half else np.float32
        self._form = Form(names, c.kv_heads, c.head_dim, kind, provider.memory, c.context_length)

    def _inputs(self, folder: Path, tensors: Checkpoint, plan: Plan, model: Any) -> dict[str, Any]:
        """The weights by their names in the graph."""
        cache = None
        if self.kind.bits < 16:
            cache = weight_cache_for(
                folder, f"int{self.kind.bits}{'-half' if self.kind.half else ''}"
            )
        made = matrices.weights(
            tensors,
            self.config,
            self.layers.first,
            self.layers.last,
            self.kind,
            plan.threads or cores(),
            cache,
            _forms(model),
        )
        return {name: ort.OrtValue.ortvalue_from_numpy(numbers) for name, numbers in made}

    def request(self) -> Slot:
        """A new request."""
        return Slot(self._form)

    def step(self, slot: Slot, x: Array) -> Array:
        """Ids (1, S) or hidden states (1, S, D) to hidden states, or logits (1, 1, V)."""
        slot.block.reach(needed(slot.length, x.shape[1], self.context))
        x = self._embedded(x)
        blocks = []
        for n in range(0, x.shape[1], BLOCK):
            block = x[:, n : n + BLOCK]
            newest = [slot.length + block.shape[1] - 1]
            blocks.append(self._run(slot.block, slot.index, block, newest))
            slot.length += block.shape[1]
        if self.layers.ends or len(blocks) == 1:
            return blocks[-1]
        return np.concatenate(blocks, axis=1)

    def step_batch(self, steps: list[tuple[Slot, Array]]) -> list[Result]:
        """What step() gives for each, to rounding: those of one position go in one step."""
        many = [n for n, (slot, x) in enumerate(steps) if self._joins(slot, x)]
        if len(many) < 2:
            return apart(self.step, steps)
        rest = [n for n in range(len(steps)) if n not in many]
        outputs = dict(zip(rest, apart(self.step, [steps[n] for n in rest]), strict=True))
        outputs |= zip(many, self._step_together([steps[n] for n in many]), strict=True)
        return [outputs[n] for n in range(len(steps))]

    def _joins(self, slot: Slot, x: Array) -> bool:
        """Whether a step can go with others: only the CPU's blocks have several slots."""
        return self.provider.name == "CPU" and x.shape[1] == 1 and slot.length < self.context

    def _step_together(self, steps: list[tuple[Slot, Array]]) -> list[Array]:
        cache, first, end = together([slot for slot, _ in steps])
        x = np.zeros((end - first, 1, self.config.hidden_size), np.float32)  # [B, 1, D]
        for slot, token in steps:
            x[slot.index - first] = self._embedded(token)[0]
        members = cache.members[first:end]
        y = self._run(cache, first, x, [member.length if member else 0 for member in members])
        for slot, _ in steps:
            slot.length += 1
        # [B, 1, D or V] -> [1, 1, D or V] each
        return [y[slot.index - first : slot.index - first + 1] for slot, _ in steps]

    def _embedded(self, x: Array) -> Array:
        """[V, D] at [1, S] -> [1, S, D]; hidden states are given."""
        if self.embedding is None:
            refuse_width(x, self.config.hidden_size)
            return x
        self.files.check()
        refuse_unknown(x, self.vocabulary)
        return self.embedding[x]

    def _run(self, cache: Block, first: int, x: Array, newest: list[int]) -> Array:
        """[B, S, D] -> [B, S, D], or [B, 1, V], of the slots from `first` on."""
        binding = cache.bound(self.session, first, first + len(x))
        binding.bind_cpu_input("x", np.ascontiguousarray(x, np.float32))
        binding.bind_cpu_input("newest", np.array(newest, np.int32))
        binding.bind_cpu_input("total", np.array(max(newest) + 1, np.int32))
        binding.bind_output("y", "cpu")
        self.session.run_with_iobinding(binding)
        hidden: Array = binding.get_outputs()[-1].numpy()
        return hidden


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


def _forms(model: Any) -> Forms:
    """Dtype and shape of each weight that a graph is given, but for what no checkpoint has."""
    return {
        w.name: (str(helper.tensor_dtype_to_np_dtype(w.data_type)), tuple(w.dims))
        for w in model.graph.initializer
        if w.data_location == w.EXTERNAL and w.name not in ("cos", "sin")
    }


def weights_size(model: Any) -> int:
    """The bytes of a model's weights, wherever they lie."""
    return sum(math.prod(w.dims) * bytes_of(w.data_type) for w in model.graph.initializer)


def bytes_of(kind: int) -> int:
    """The bytes of one number."""
    return int(helper.tensor_dtype_to_np_dtype(kind).itemsize)


def _shape(value: Any) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
