"""Layers of a finished export as a session, and the requests that run through it."""

import math
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import onnxruntime as ort

from ..contract import Array, Layers
from ..ids import refuse_unknown
from ..repository.facts import RepositoryError
from ..repository.watched import WatchedFiles
from ..settings import PREFIX
from . import arena, export_graph
from .batch import Result, apart
from .checkpoint import BLOCK, bytes_of, give_back, session_options, weights_size
from .cut import BRANCH, IDS, KEPT, MASK, PAST, POSITIONS, CutError, Part, layers_of, part_of
from .export_files import Export
from .kv_cache import needed
from .plan import Plan
from .providers import Provider, session

DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
BESIDE = "session.model_external_initializers_file_folder_path"  # where the weights' file lies
UNBOUNDED = 1 << 30
# A run that takes longer is ended. BLOCK positions have a minute; less than that is told sooner on
# the CPU, whose first run is as any other. Elsewhere the first one may compile.
CPU_SECONDS, RUN_SECONDS, MOST_SECONDS = 20.0, 60.0, 300.0
POSITION_SECONDS = (RUN_SECONDS - CPU_SECONDS) / BLOCK
# What ONNX Runtime says where memory, or a number of bytes, does not do.
FULL = ("Available memory of", "Failed to allocate", "bad_alloc", "bad alloc", "Integer overflow")


class ExportLayers:
    """A session of some layers of an export; names and types are the session's."""

    def __init__(self, layers: Layers, export: Export, plan: Plan, provider: Provider) -> None:
        self.layers, self.provider = layers, provider
        self.context = export.context or UNBOUNDED
        model = export_graph.read(export.path)
        total = layers_of(model.graph)
        if total != layers.total:
            raise RepositoryError(
                f"the export {export.path} has {total} layers, but the model card of "
                f"{layers.model} says {layers.total}: correct MODELS in models.py"
            )
        self.vocabulary = export_graph.vocabulary(model)
        self.part = _part(model, layers, export.path)
        folder, outside = export_graph.locate_weights(self.part.model, export.path)
        self.files = WatchedFiles([export.path, *outside])
        options = session_options(plan.threads)
        options.add_session_config_entry(BESIDE, str(folder))
        arena.bound(options)
        folds = export_graph.folds(self.part.model)
        content = self.part.model.SerializeToString()
        self.session = session(content, options, provider, {}, folds)
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        # A branch without caches takes the whole prompt at once.
        self.block = self.context if BRANCH in self.inputs else BLOCK
        self.size = weights_size(self.part.model)
        self.caches = [name for name in self.inputs if PAST.fullmatch(name)]
        give_back()

        self._head = export.head
        for name in self.caches:
            self.empty(name)  # says what is missing at the load, not at the first request

    def empty(self, name: str) -> tuple[int, int, int, int]:
        """The shape of a cache without positions. Raises RepositoryError."""
        _, heads, _, size = self.inputs[name].shape
        size = size if isinstance(size, int) else self._head
        if not isinstance(heads, int) or size is None or self.inputs[name].type not in DTYPES:
            raise RepositoryError(
                f"the export's {name} is {self.inputs[name].type} {self.inputs[name].shape}: its "
                "heads can't be told, and neither genai_config.json nor config.json has head_size "
                "or head_dim"
            )
        return 1, heads, 0, size

    def request(self) -> "Request":
        """A new request."""
        return Request(self)

    def step(self, request: "Request", x: Array) -> Array:
        """Ids (1, S) or what crosses (1, S, n*D) to what crosses, or logits (1, 1, V)."""
        return request.step(x)

    def step_batch(self, steps: "list[tuple[Request, Array]]") -> list[Result]:
        """Each by itself: what exporters make of caches has one length for all of a batch."""
        return apart(self.step, steps)


class Request:
    """One request's caches: a step is given them, and gives them longer."""

    def __init__(self, owner: ExportLayers) -> None:
        self._owner, self._length = owner, 0
        self._past: dict[str, Any] = {}
        for name in owner.caches:
            empty = np.zeros(owner.empty(name), DTYPES[owner.inputs[name].type])
            self._past[name] = ort.OrtValue.ortvalue_from_numpy(empty)

    @property
    def size(self) -> int:
        """The bytes of its caches."""
        return sum(math.prod(v.shape()) * bytes_of(v.element_type()) for v in self._past.values())

    def copied(self, length: int) -> "Request":
        """A new one with the first positions of this one."""
        copy = Request(self._owner)
        memory = self._owner.provider.memory
        for name, value in self._past.items():
            some = np.ascontiguousarray(value.numpy()[:, :, :length])
            copy._past[name] = ort.OrtValue.ortvalue_from_numpy(some, *memory)
        copy._length = length
        return copy

    def forget(self) -> None:
        """Let go of its caches."""
        self._past.clear()

    def step(self, x: Array) -> Array:
        """As ExportLayers.step()."""
        owner = self._owner
        owner.files.check()
        if owner.layers.embeds:
            refuse_unknown(x, owner.vocabulary)
        needed(self._length, x.shape[1], owner.context)
        starts = range(0, x.shape[1], owner.block)
        parts = [self._run(x[:, n : n + owner.block]) for n in starts]
        return parts[-1] if owner.layers.ends or len(parts) == 1 else np.concatenate(parts, axis=1)

    def _run(self, x: Array) -> Array:
        owner, total = self._owner, self._length + x.shape[1]
        binding = owner.session.io_binding()
        for name, array in self._inputs(x, total).items():
            binding.bind_cpu_input(name, array)
        for name, value in self._past.items():
            binding.bind_ortvalue_input(name, value)
        for name in owner.part.y:
            binding.bind_output(name, "cpu")
        for name in owner.caches:
            binding.bind_output(_present(name), *owner.provider.memory)
        _run_bounded(owner.session, binding, run_seconds(owner.provider, x.shape[1]))
        made = binding.get_outputs()
        count = len(owner.part.y)
        self._past = dict(zip(owner.caches, made[count:], strict=True))
        self._length = total
        return self._joined([value.numpy() for value in made[:count]], x.shape[1])

    def _inputs(self, x: Array, total: int) -> dict[str, Array]:
        """The inputs that the session asks for, but caches."""
        owner, length = self._owner, x.shape[1]
        inputs = {
            # Behind the first layers only its shape is read.
            IDS: x if owner.layers.embeds else np.zeros((1, length), np.int64),
            MASK: np.ones((1, total), np.int64),
            POSITIONS: np.arange(total - length, total, dtype=np.int64)[None],
            KEPT: np.array(1, np.int64),
            BRANCH: np.array([self._length > 0]),
        }
        if not owner.layers.embeds:
            parts = np.split(x, len(owner.part.x), axis=2)
            inputs |= dict(zip(owner.part.x, parts, strict=True))
        types = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}
        return {
            name: np.asarray(array, (types | DTYPES)[owner.inputs[name].type], order="C")
            for name, array in inputs.items()
            if name in owner.inputs
        }

    def _joined(self, made: list[Array], length: int) -> Array:
        """What crosses travels as one array; of logits the last position's."""
        if self._owner.layers.ends:
            return made[0][:, -1:].astype(np.float32)
        if any(array.ndim != 3 or array.shape[:2] != (1, length) for array in made):
            shapes = ", ".join(str(array.shape) for array in made)
            raise RuntimeError(f"this export can't be cut here: {shapes} would cross")
        return np.concatenate(made, axis=2).astype(np.float32)


def run_seconds(provider: Provider, positions: int) -> float:
    """How long a run of so many positions may take."""
    least = CPU_SECONDS if provider.name == "CPU" else RUN_SECONDS
    return min(least + POSITION_SECONDS * positions, MOST_SECONDS)


def _run_bounded(made: Any, binding: Any, seconds: float) -> None:
    """One run of a session, which is ended where it takes too long: the graph is a stranger's."""
    options = ort.RunOptions()
    timer = Timer(seconds, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        made.run_with_iobinding(binding, options)
    except Exception as error:
        if options.terminate:
            raise RuntimeError(
                f"a step of the export takes longer than {seconds:.0f} s, and was stopped"
            ) from error
        if any(words in str(error) for words in FULL):
            raise RuntimeError(
                "a step of the export takes more memory than there is for it; on the CPU that is "
                f"{arena.SHARE:.0%} of this machine's"
            ) from error
        raise
    finally:
        timer.cancel()


def _part(model: Any, layers: Layers, path: Path) -> Part:
    """The layers of an export; all of them are the export as it is."""
    if layers.count == layers.total:
        return Part(model, (), ("logits",))
    try:
        return part_of(model, layers.first, layers.last)
    except CutError as error:
        raise RepositoryError(
            f"{path} can't be cut by layers, as {error}: it runs whole, on one node. In a cluster, "
            f"set {PREFIX}WHOLE=1 on every node"
        ) from error


def _present(name: str) -> str:
    return name.replace("past_key_values", "present")
