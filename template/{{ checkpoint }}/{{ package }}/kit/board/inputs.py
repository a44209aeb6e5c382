"""What an operation of a case is called with: drawn numbers, with NaN in the memory around them.

S, R, D, F, H, K, E, V as in kit/llama/llama.py.
"""

from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ..llama.llama import Array, Model, Operations, Part, Weights, forward
from ..llama.rotation import rotation
from ..llama.weights import layer_shapes
from .cases import Case

GUARD = 4096  # numbers before and behind each array
DRAWN = 65537  # numbers that are drawn; larger arrays repeat them
SPARE = 13  # positions of a cache that stay free
LAYERS, LAYER = 2, 1  # of a cache, and which one an operation is given


@dataclass(frozen=True)
class Inputs:
    """A case's weights, its activations by name, and what requests have behind them."""

    case: Case
    weights: Weights
    x: dict[str, NDArray[Any]]
    parts: tuple[Part, ...]

    def copied(self) -> "Inputs":
        """The same with arrays of its own, but for the weights."""
        own = [replace(p, keys=p.keys.copy(), values=p.values.copy()) for p in self.parts]
        return replace(self, x={k: v.copy() for k, v in self.x.items()}, parts=tuple(own))

    def following(self, seed: int) -> "Inputs":
        """The next step: one row of each request, behind what is in the caches now."""
        case = replace(self.case, rows=1)
        parts = tuple(replace(p, length=1, position=p.end) for p in self.parts)
        return replace(self, case=case, x=_activations(case, parts, _rng(case, seed)), parts=parts)

    def call(self, op: Operations, table: Operations) -> Array:
        """Call the case's operation of `op`; the larger ones get `table` for the smaller ones."""
        case, x, w = self.case, self.x, self.weights
        name, config = case.operation, case.config
        window = case.window or None
        if name == "model":
            layers = tuple(_layer(w, n) for n in range(LAYERS))
            model = Model(config, 0, layers, w["embedding"], w["norm"], w["head"])
            return forward(x["ids"], self.parts, model, table)
        arguments: dict[str, tuple[Any, ...]] = {
            "embed": (x.get("ids"), w.get("embedding")),
            "rms_norm": (x.get("x"), w.get("norm"), case.eps),
            "linear": (x.get("x"), w.get("matrix"), w.get("bias")),
            "rotate": (x.get("q"), x.get("cos"), x.get("sin")),
            "mlp": (x.get("x"), _layer(w, 0), table),
            "logits": (x.get("x"), w.get("norm"), w.get("head"), config, table),
        }
        if name == "attend":
            arguments[name] = (x["q"], x["k"], x["v"], self.parts[0], LAYER, window, config)
        elif name in ("attention", "layer"):
            turned = (self.parts, LAYER, x["cos"], x["sin"], window)
            arguments[name] = (x["x"], *turned, _layer(w, 0), config, table)
        output: Array = getattr(op, name)(*arguments[name])
        return output


def draw(case: Case, seed: int) -> Inputs:
    """New numbers, in new memory."""
    rng = _rng(case, seed)
    parts = _parts(case, rng)
    return Inputs(case, _weights(case, rng), _activations(case, parts, rng), parts)


def _rng(case: Case, seed: int) -> np.random.Generator:
    return np.random.default_rng([crc32(str(case).encode()), seed])


def _numbers(rng: np.random.Generator, case: Case, shape: tuple[int, ...], scale: float) -> Array:
    """Rounded to the case's dtype; NaN stands before and behind them in memory."""
    size = int(np.prod(shape))
    drawn = rng.standard_normal(min(size, DRAWN), np.float32) * np.float32(scale)
    if case.dtype == "float16":
        drawn = drawn.astype(np.float16).astype(np.float32)
    elif case.dtype == "bfloat16":
        drawn = (drawn.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    memory = np.full(size + 2 * GUARD, np.nan, np.float32)
    inside = memory[GUARD : GUARD + size]
    inside[:] = np.resize(drawn, size)
    return inside.reshape(shape)


def _weights(case: Case, rng: np.random.Generator) -> Weights:
    """What the operation has of a checkpoint: matrices that keep a row's size, norms around 1."""

    def tensor(name: str, *shape: int) -> Array:
        if len(shape) > 1:
            return _numbers(rng, case, shape, shape[-1] ** -0.5)
        numbers = _numbers(rng, case, shape, 0.3)
        return numbers if name.endswith("bias") else np.add(numbers, 1, out=numbers)

    size = case.head_dim if case.operation == "rms_norm" and case.qk_norm else case.hidden
    shapes: dict[str, tuple[int, ...]] = {
        "embedding": (case.vocab, case.hidden),
        "norm": (size,),
        "head": (case.vocab, case.hidden),
        "matrix": (case.inner, case.hidden),
    }
    shapes |= {"bias": (case.inner,)} if case.bias else {}
    names = {
        "embed": ("embedding",),
        "rms_norm": ("norm",),
        "linear": ("matrix", "bias"),
        "logits": ("norm", "head"),
        "model": ("embedding", "norm", "head"),
    }.get(case.operation, ())
    layers = {"model": LAYERS, "layer": 1, "attention": 1, "mlp": 1}.get(case.operation, 0)
    shapes = {name: shape for name, shape in shapes.items() if name in names}
    for n in range(layers):
        shapes |= {f"{n}.{name}": shape for name, shape in layer_shapes(case.config).items()}
    return {name: tensor(name, *shape) for name, shape in shapes.items()}


def _layer(weights: Weights, n: int) -> Weights:
    """A layer's weights, by their names in it."""
    prefix = f"{n}."
    return {k.removeprefix(prefix): w for k, w in weights.items() if k.startswith(prefix)}


def _activations(
    case: Case, parts: tuple[Part, ...], rng: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """What comes from the operations before it."""
    rows, name = sum(part.length for part in parts), case.operation
    queries, pairs = (rows, case.heads, case.head_dim), (rows, case.kv_heads, case.head_dim)
    if name in ("embed", "model"):
        return {"ids": rng.integers(0, case.vocab, rows)}
    shapes: dict[str, tuple[int, ...]] = {"x": (rows, case.hidden)}
    if name == "rms_norm" and case.qk_norm:
        shapes = {"x": queries}
    if name == "rotate":
        shapes = {"q": queries}
    if name == "attend":
        shapes = {"q": queries, "k": pairs, "v": pairs}
    numbers = {
        key: _numbers(rng, case, shape, 1.0 if key == "v" else case.scale)
        for key, shape in shapes.items()
    }
    if name == "attend":
        numbers["q"] *= np.float32(case.head_dim**-0.5)
    x: dict[str, NDArray[Any]] = dict(numbers)
    if name in ("rotate", "attention", "layer"):
        positions = np.concatenate([np.arange(part.position, part.end) for part in parts])
        x["cos"], x["sin"] = rotation(positions, case.config)
    return x


def _parts(case: Case, rng: np.random.Generator) -> tuple[Part, ...]:
    """Requests with what came before in their caches, and NaN where nothing is yet."""
    parts = []
    for n in range(case.requests):
        position, length = case.past + 5 * n, case.rows if n == 0 else 1
        room = position + length + case.steps + SPARE
        keys = np.full((LAYERS, case.kv_heads, case.head_dim, room), np.nan, np.float32)
        values = np.full((LAYERS, case.kv_heads, room, case.head_dim), np.nan, np.float32)
        past = _numbers(rng, case, (LAYERS, case.kv_heads, case.head_dim, position), case.scale)
        keys[..., :position] = past
        past = _numbers(rng, case, (LAYERS, case.kv_heads, position, case.head_dim), 1.0)
        values[:, :, :position] = past
        parts.append(Part(length, position, keys, values))
    return tuple(parts)
