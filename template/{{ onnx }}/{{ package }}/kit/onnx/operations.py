"""The graph's pieces as operations of the board: each a graph of its own, on the provider.

S, R, B, D, V, H, K, E as in kit/llama/llama.py, whose functions they stand beside. What they are
given goes to the device and back in every call, so their times are no model's.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast
from weakref import finalize

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto

from ..board.cases import Case
from ..llama.config import Config
from ..llama.llama import Array, Operations, Part, Weights
from . import graph, matrices
from .checkpoint import kind_of, session_options
from .graph import CONTRIB, HEAD_STEP, Graph
from .plan import Plan
from .providers import Provider, ProviderError, session

LAYER = "model.layers.0"
PLAIN = Case("linear").config  # for what is read of a config by other operations alone
Numbers = NDArray[Any]


class GivenLayer:
    """One layer's weights, where matrices.Maker reads a checkpoint."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def tensor(self, name: str, shape: tuple[int, ...]) -> Array:
        """One of them."""
        return self._weights[name.removeprefix(f"{LAYER}.")]


def first(y: Array) -> Array:
    """The one request's, [1, R, D] -> [R, D]."""
    one: Array = y[0]
    return one


class Pieces:
    """The operations of one provider. Raises ProviderError where it has no such floats."""

    def __init__(self, plan: Plan, provider: Provider) -> None:
        self._plan, self._provider = plan, provider
        self.kind = kind_of(plan.precision, provider)
        self._float = np.float16 if self.kind.half else np.float32
        self._sessions: dict[tuple[Any, ...], Any] = {}
        self._pool = ThreadPoolExecutor(1)  # for small numbers, of which there are none: no thread

    @property
    def table(self) -> dict[str, Callable[..., Array]]:
        """Those that are graphs; rows are taken from the embedding by NumPy in a model, too."""
        names = ("rms_norm", "linear", "attend", "attention", "mlp", "layer", "logits")
        return {name: getattr(self, name) for name in names}

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        """The norm of the last axis, [..., D] -> [..., D]."""

        def build(g: Graph) -> str:
            return graph.rms_norm(g, self._x(g, x.ndim), "norm", len(weight))

        config, tensors = replace(PLAIN, norm_eps=eps), {"norm.weight": weight}
        return self._run(("rms_norm", eps), weight, config, lambda: tensors, build, {"x": x})

    def linear(self, x: Array, weight: Array, bias: Array | None) -> Array:
        """[R, in] -> [R, out]."""
        outputs, inputs = weight.shape
        tensors = {"it.weight": weight} | ({} if bias is None else {"it.bias": bias})

        def build(g: Graph) -> str:
            return graph.linear(g, self._x(g), "it", inputs, outputs, bias is not None)

        return first(self._run(("linear",), weight, PLAIN, lambda: tensors, build, {"x": x[None]}))

    def logits(self, x: Array, norm: Array, head: Array, config: Config, op: Operations) -> Array:
        """[B, D] -> [B, V]."""
        name, (vocabulary, hidden) = graph.head(config), head.shape
        tensors = {"model.norm.weight": norm, f"{name}.weight": head}

        def build(g: Graph) -> str:
            normed = graph.rms_norm(g, self._x(g), "model.norm", len(norm))
            return graph.linear(g, normed, name, hidden, vocabulary)

        return first(self._run(("logits",), head, config, lambda: tensors, build, {"x": x[None]}))

    def mlp(self, x: Array, w: Weights, op: Operations) -> Array:
        """[R, D] -> [R, D]."""
        inner, hidden = w["mlp.gate_proj.weight"].shape
        bias = "mlp.gate_proj.bias" in w
        config = replace(PLAIN, hidden_size=hidden, intermediate_size=inner, mlp_bias=bias)

        def build(g: Graph) -> str:
            return graph.mlp(g, self._x(g), f"{LAYER}.mlp")

        def tensors() -> dict[str, Numbers]:
            return self._layer(w, "mlp", config)

        key = w["mlp.gate_proj.weight"]
        return first(self._run(("mlp",), key, config, tensors, build, {"x": x[None]}))

    def attend(
        self, q: Array, k: Array, v: Array, part: Part, n: int, window: int | None, config: Config
    ) -> Array:
        """[S, H, E] -> [S, H*E], without a turn: q and k are turned, and q is scaled."""
        rows, c = part.length, config

        def build(g: Graph) -> str:
            room = (g.float, "B", c.kv_heads, "room", c.head_dim)
            tensors = [
                g.Cast(g.input(x, TensorProto.FLOAT, "B", "S", "D"), to=g.float) for x in "qkv"
            ]
            self._lengths(g)
            return g.GroupQueryAttention(
                *(
                    *tensors,
                    g.input("keys.0", *room),
                    g.input("values.0", *room),
                    "newest",
                    "total",
                ),
                names=("mixed", g.output("new_keys.0", *room), g.output("new_values.0", *room)),
                domain=CONTRIB,
                num_heads=c.heads,
                kv_num_heads=c.kv_heads,
                scale=1.0,
                local_window_size=window or -1,
            )

        key = ("attend", c.heads, c.kv_heads, c.head_dim, window)
        x = {name: array.reshape(1, rows, -1) for name, array in zip("qkv", (q, k, v), strict=True)}
        return first(self._run(key, None, config, dict, build, x, (part, n)))

    def attention(
        self,
        x: Array,
        parts: Sequence[Part],
        n: int,
        cos: Array,
        sin: Array,
        window: int | None,
        w: Weights,
        config: Config,
        op: Operations,
    ) -> Array:
        """[R, D] -> [R, D]; the angles are the graph's own."""
        return self._apart("attention", x, parts, n, window, w, config)

    def layer(
        self,
        x: Array,
        parts: Sequence[Part],
        n: int,
        cos: Array,
        sin: Array,
        window: int | None,
        w: Weights,
        config: Config,
        op: Operations,
    ) -> Array:
        """[R, D] -> [R, D]; the angles are the graph's own."""
        return self._apart("layer", x, parts, n, window, w, config)

    def _apart(
        self,
        name: str,
        x: Array,
        parts: Sequence[Part],
        n: int,
        window: int | None,
        w: Weights,
        config: Config,
    ) -> Array:
        """Each part's rows in a step of their own, [R, D] -> [R, D]."""
        room = max(part.keys.shape[-1] for part in parts)
        config = replace(config, layers=1, windows=(window,), context_length=room)
        inside = "" if name == "layer" else "self_attn"

        def tensors() -> dict[str, Numbers]:
            return self._layer(w, inside, config) | matrices.rotations(config, self.kind)

        def build(g: Graph) -> str:
            x = self._x(g)
            self._lengths(g)
            for angles in ("cos", "sin"):
                g.weight(angles, room, config.head_dim // 2)
            if name == "layer":
                return graph.layer(g, x, 0)
            return graph.attention(g, x, f"{LAYER}.{inside}", 0)

        key, weight, rows, row = (name, room, window), w["self_attn.q_proj.weight"], [], 0
        for part in parts:
            own = {"x": x[None, row : row + part.length]}
            rows.append(first(self._run(key, weight, config, tensors, build, own, (part, n))))
            row += part.length
        return np.concatenate(rows)

    def _x(self, g: Graph, rank: int = 3) -> str:
        """What a graph is given: floats, as a model's."""
        shape = ["D", "S", "B", "A"][:rank][::-1]
        return g.Cast(g.input("x", TensorProto.FLOAT, *shape), to=g.float)

    def _lengths(self, g: Graph) -> None:
        g.input("newest", TensorProto.INT32, "B")
        g.input("total", TensorProto.INT32)

    def _layer(self, w: Weights, inside: str, config: Config) -> dict[str, Numbers]:
        """A layer's weights as the graph has them: those below `inside`."""
        maker = matrices.Maker(cast(Any, GivenLayer(w)), config, self.kind, self._pool)
        prefix = f"{LAYER}.{inside}"
        return {k: v for k, v in maker.layer(0).items() if k.startswith(prefix)}

    def _run(
        self,
        key: tuple[Any, ...],
        weight: Array | None,
        config: Config,
        tensors: Callable[[], dict[str, Numbers]],
        build: Callable[[Graph], str],
        x: dict[str, Array],
        cache: tuple[Part, int] | None = None,
    ) -> Array:
        """Run a graph, which is made once for a weight: the device's copies live as long as it."""
        whole = (*key, id(weight), *(array.ndim for array in x.values()))
        if whole not in self._sessions:
            self._sessions[whole] = self._session(config, tensors(), build)
            if weight is not None:
                finalize(weight, self._sessions.pop, whole, None)
        made = self._sessions[whole]
        binding = made.io_binding()
        for name, array in x.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array, np.float32))
        after = self._bind(binding, *cache) if cache else {}
        binding.bind_output("y", "cpu")
        made.run_with_iobinding(binding)
        if cache:
            part, n = cache
            keys, values = (after[name].numpy()[0] for name in ("keys.0", "values.0"))
            new = slice(part.position, part.end)
            part.keys[n][:, :, new] = keys[:, new].transpose(0, 2, 1)  # [K, S, E] -> [K, E, S]
            part.values[n][:, new] = values[:, new]  # [K, S, E]
        y: Array = binding.get_outputs()[-1].numpy()
        return y

    def _bind(self, binding: Any, part: Part, n: int) -> dict[str, Any]:
        """Bind a part's keys and values, in and out, with zeros where nothing is yet."""
        past, end = part.position, part.end
        arrays = {"keys.0": part.keys[n].transpose(0, 2, 1), "values.0": part.values[n]}
        after = {}
        for name, array in arrays.items():  # [K, room, E]
            whole = np.zeros((1, *array.shape), self._float)
            whole[0, :, :past] = array[:, :past]
            after[name] = ort.OrtValue.ortvalue_from_numpy(whole, *self._provider.memory)
            binding.bind_ortvalue_input(name, after[name])
            binding.bind_ortvalue_output(f"new_{name}", after[name])
        binding.bind_cpu_input("newest", np.array([end - 1], np.int32))
        binding.bind_cpu_input("total", np.array(end, np.int32))
        return after

    def _session(
        self, config: Config, tensors: dict[str, Numbers], build: Callable[[Graph], str]
    ) -> Any:
        """A session on the provider. Raises NotImplementedError where it can't have one."""
        g = Graph(config, self.kind)
        made = build(g)
        if config.head_dim % HEAD_STEP and "newest" in [value.name for value in g.inputs]:
            raise NotImplementedError(
                f"GroupQueryAttention takes multiples of {HEAD_STEP}, not {config.head_dim}"
            )
        g.Cast(made, to=TensorProto.FLOAT, names=("y",))
        g.output("y", TensorProto.FLOAT)
        options = session_options(self._plan.threads)
        own = {
            k: np.ascontiguousarray(v, self._float) for k, v in tensors.items() if k in g.weights
        }
        values = {k: ort.OrtValue.ortvalue_from_numpy(v) for k, v in own.items()}
        options.add_external_initializers(list(values), list(values.values()))
        try:
            return session(g.model().SerializeToString(), options, self._provider, {})
        except ProviderError as error:
            raise NotImplementedError(str(error)) from error
