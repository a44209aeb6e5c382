"""What the graph's weights hold: the checkpoint's numbers as floats, or small with scales."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..llama.config import Config
from ..llama.rotation import frequencies
from ..llama.weights import Checkpoint, Rows, layer_shapes
from .graph import BLOCKS, Kind, bits_of, head
from .weight_cache import Forms, WeightCache

PIECE = 1 << 18  # numbers that are rounded at a time: they stay in the CPU's cache
# Matrices of the graph that are several of the checkpoint, one below the other.
JOINED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}
_JOINED_TO = {part: whole for whole, parts in JOINED.items() for part in parts}

Numbers = NDArray[Any]
Part = dict[str, Numbers]


def weights(
    checkpoint: Checkpoint,
    config: Config,
    first: int,
    last: int,
    kind: Kind,
    threads: int,
    cache: WeightCache | None,
    forms: Forms,
) -> Iterator[tuple[str, Numbers]]:
    """The weights of layers `first` to `last` by their names in the graph, one at a time.

    kept: files of what was rounded before; forms: dtype and shape of the graph's weights.
    Raises FileNotFoundError, RepositoryError.
    """
    yield from rotations(config, kind).items()
    with ThreadPoolExecutor(threads, thread_name_prefix="rounding") as pool:
        maker = Maker(checkpoint, config, kind, pool)
        for n in range(first, last + 1):
            own = {k: f for k, f in forms.items() if k.startswith(f"model.layers.{n}.")}
            yield from _through(cache, f"layer-{n}", own, lambda n=n: maker.layer(n))
        if last == config.layers - 1:
            own = {k: f for k, f in forms.items() if not k.startswith("model.layers.")}
            yield from _through(cache, "head", own, maker.head)


def _through(
    cache: WeightCache | None, name: str, forms: Forms, make: Any
) -> Iterator[tuple[str, Numbers]]:
    """A part as it was kept, or made now and kept."""
    part: Part | None = cache.read(name, forms) if cache else None
    if part is None:
        part = make()
        if cache:
            cache.write(name, part)
    yield from part.items()


def rotations(config: Config, kind: Kind) -> Part:
    """Cosines and sines of every position's angles, [context, E/2] each."""
    angles = np.outer(np.arange(config.context_length), frequencies(config))  # [context, E/2]
    plain = np.float16 if kind.half else np.float32
    both = {"cos": np.cos(angles), "sin": np.sin(angles)}
    return {name: (config.rope.attention * part).astype(plain) for name, part in both.items()}


class Maker:
    """Makes the graph's weights of a checkpoint, a layer at a time."""

    def __init__(self, checkpoint: Checkpoint, config: Config, kind: Kind, pool: Executor) -> None:
        self._checkpoint, self._config, self._kind, self._pool = checkpoint, config, kind, pool
        self._plain = np.float16 if kind.half else np.float32

    def layer(self, n: int) -> Part:
        """One layer."""
        shapes, made = layer_shapes(self._config), Part()
        for name in shapes:
            owner, _, what = name.rpartition(".")
            whole = _JOINED_TO.get(owner, owner)
            if f"model.layers.{n}.{whole}.{what}" in made:
                continue
            parts = [f"{part}.{what}" for part in JOINED.get(whole, (owner,))]
            tensors = {f"model.layers.{n}.{part}": shapes[part] for part in parts}
            made |= self._made(f"model.layers.{n}.{whole}", what, tensors)
        return made

    def head(self) -> Part:
        """What stands behind the last layer."""
        c, owner = self._config, head(self._config)
        made = self._made("model.norm", "weight", {"model.norm.weight": (c.hidden_size,)})
        matrix = (c.vocab_size, c.hidden_size)
        return made | self._made(owner, "weight", {f"{owner}.weight": matrix})

    def _made(self, owner: str, what: str, tensors: dict[str, tuple[int, ...]]) -> Part:
        """One weight of the graph, of these tensors one below the other."""
        name, bits = f"{owner}.{what}", bits_of(owner, self._config, self._kind)
        if len(next(iter(tensors.values()))) == 2 and bits < 16:
            parts = [self._checkpoint.rows(*tensor) for tensor in tensors.items()]
            numbers, scales = rounded(parts, bits, self._pool)
            return {name: numbers, f"{owner}.scales": scales.astype(self._plain)}
        arrays = [self._checkpoint.tensor(*tensor) for tensor in tensors.items()]
        one = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        return {name: np.ascontiguousarray(one, self._plain)}


def rounded(parts: list[Rows], bits: int, pool: Executor) -> tuple[Numbers, Numbers]:
    """[out, in] each -> numbers [out, blocks, block*bits/8] and scales [out, blocks] of all."""
    outputs, inputs = sum(part.shape[0] for part in parts), parts[0].shape[1]
    size, step = BLOCKS[bits], max(1, PIECE // inputs)
    blocks = -(-inputs // size)
    numbers = np.empty((outputs, blocks, size * bits // 8), np.uint8)
    scales = np.empty((outputs, blocks), np.float32)

    def piece(part: Rows, at: int, n: int) -> None:
        some = slice(n, min(n + step, part.shape[0]))
        into = slice(at + some.start, at + some.stop)
        numbers[into], scales[into] = round_rows(part[some], bits)

    at, waiting = 0, []
    for part in parts:
        waiting += [pool.submit(piece, part, at, n) for n in range(0, part.shape[0], step)]
        at += part.shape[0]
    for done in waiting:
        done.result()
    return numbers, scales


def round_rows(rows: Numbers, bits: int) -> tuple[Numbers, Numbers]:
    """[R, in] -> numbers around the middle [R, blocks, block*bits/8], and scales [R, blocks]."""
    middle, size, inputs = 1 << (bits - 1), BLOCKS[bits], rows.shape[1]
    if inputs % size:
        rows = np.pad(rows, ((0, 0), (0, -inputs % size)))
    rows = rows.reshape(len(rows), -1, size)  # [R, blocks, block]
    low, high = rows.min(axis=2), rows.max(axis=2)  # [R, blocks]
    scale = np.where(-low > high, low, high) / np.float32(-middle)  # the extreme becomes -middle
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)  # [R, blocks]
    whole = rows * inverse[..., None]  # [R, blocks, block]
    whole += np.float32(middle + 0.5)  # floor by the cast below: rounds to the nearest
    np.minimum(whole, 2 * middle - 1, out=whole)
    small = whole.astype(np.uint8)
    if bits == 4:
        small = small[..., 0::2] | small[..., 1::2] << np.uint8(4)  # [R, blocks, block/2]
    return small, scale
