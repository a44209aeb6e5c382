"""The Llama family in NumPy: pure functions, with the shapes beside every line that has a matrix.

S  positions of a request's step      D  hidden size          V  vocabulary
R  rows of all requests in a step     B  requests in a step
T  positions that can be attended to  F  intermediate size    L  layers
H  query heads   K  key-value heads   G  query heads that share a key-value head   E  head size

A layer's weights are named as in the checkpoint, without its "model.layers.N."; matrices are
[out, in] as there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..repository.watched import WatchedFiles
from .config import Config

FEW = 6  # rows; for more than so many the BLAS's own way is as fast, or faster
CACHED = 1 << 17  # numbers of a matrix that stay in a core's cache meanwhile

Array = NDArray[np.float32]
Weights = dict[str, Array]


@dataclass(frozen=True)
class Part:
    """The rows of one request in a step: `length` of them, the first at `position`.

    keys [L, K, E, room] and values [L, K, room, E] are filled up to there; the step adds its own.
    """

    length: int
    position: int
    keys: Array
    values: Array

    @property
    def end(self) -> int:
        """The position behind its last row."""
        return self.position + self.length


@dataclass(frozen=True)
class Model:
    """Consecutive layers, from `start` on; the first shard embeds, the last has norm and head."""

    config: Config
    start: int
    layers: tuple[Weights, ...]
    embedding: Array | None  # [V, D]
    norm: Array | None  # [D]
    head: Array | None  # [V, D]
    files: WatchedFiles = field(default_factory=WatchedFiles)  # those that arrays are views of

    @property
    def nbytes(self) -> int:
        """What the weights take; tied ones once."""
        own = [self.embedding, self.norm, self.head, *(w for x in self.layers for w in x.values())]
        known = {id(w): w.nbytes for w in own if w is not None}
        return sum(known.values())


def forward(x: NDArray[Any], parts: Sequence[Part], model: Model) -> Array:
    """Run the rows of one or several requests, one after the other in x, through the layers.

    x: ids [R] where the model embeds, else hidden states [R, D]; R: the rows of all parts together.
    Returns hidden states [R, D], or the logits of each part's last row [B, V] where the model has a
    head; B: the number of parts.
    """
    config = model.config
    if model.embedding is not None:
        refuse_unknown(x, len(model.embedding))
        x = model.embedding[x]  # [V, D] at [R] -> [R, D]
    else:
        refuse_width(x, config.hidden_size)
    positions = [np.arange(part.position, part.end) for part in parts]
    cos, sin = rotation(np.concatenate(positions), config)  # [R, 1, 2, E/2] each
    for n, w in enumerate(model.layers):
        window = config.windows[model.start + n]
        normed = rms_norm(x, w["input_layernorm.weight"], config.norm_eps)  # [R, D]
        x = x + attention(normed, parts, n, cos, sin, window, w, config)  # [R, D]
        normed = rms_norm(x, w["post_attention_layernorm.weight"], config.norm_eps)  # [R, D]
        x = x + mlp(normed, w)  # [R, D]
    if model.norm is None or model.head is None:
        return x  # [R, D]
    ends = np.cumsum([part.length for part in parts]) - 1  # [B]
    last = rms_norm(x[ends], model.norm, config.norm_eps)  # [R, D] at [B] -> [B, D]
    return product(last, model.head)  # [B, D] @ [D, V] -> [B, V]


def refuse_unknown(ids: NDArray[Any], vocabulary: int | None) -> None:
    """Raise ValueError where an id has no row in the embedding; a tokenizer may have more."""
    if vocabulary is not None and not 0 <= ids.min() <= ids.max() < vocabulary:
        wrong = ids.max() if ids.min() >= 0 else ids.min()
        raise ValueError(f"there is no token {wrong}: the model has {vocabulary}")


def refuse_width(states: NDArray[Any], size: int) -> None:
    """Raise ValueError for hidden states [..., D] of another size; one of 1 would be broadcast."""
    if states.shape[-1] != size:
        raise ValueError(
            f"hidden states of size {states.shape[-1]} came, and this model's layers take {size}: "
            "another node runs another model"
        )


def attention(
    x: Array,
    parts: Sequence[Part],
    layer: int,
    cos: Array,
    sin: Array,
    window: int | None,
    w: Weights,
    config: Config,
) -> Array:
    """Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245), [R, D] -> [R, D].

    The products are of all rows, but each sees its own part.

    layer: which of the parts' layers this is.
    """
    q = heads(linear(x, w, "self_attn.q_proj"), config)  # [R, D] -> [R, H, E]
    k = heads(linear(x, w, "self_attn.k_proj"), config)  # [R, D] -> [R, K, E]
    v = heads(linear(x, w, "self_attn.v_proj"), config)  # [R, D] -> [R, K, E]
    if config.qk_norm:
        q = rms_norm(q, w["self_attn.q_norm.weight"], config.norm_eps)  # [R, H, E]
        k = rms_norm(k, w["self_attn.k_norm.weight"], config.norm_eps)  # [R, K, E]
    q = rotate(q, cos, sin) * config.head_dim**-0.5  # [R, H, E]
    k = rotate(k, cos, sin)  # [R, K, E]
    mixed, row = [], 0
    for part in parts:
        own = slice(row, row + part.length)  # S of the R rows
        mixed.append(attend(q[own], k[own], v[own], part, layer, window, config))  # [S, H*E]
        row = own.stop
    return linear(np.concatenate(mixed), w, "self_attn.o_proj")  # [R, H*E] -> [R, D]


def attend(
    q: Array, k: Array, v: Array, part: Part, layer: int, window: int | None, config: Config
) -> Array:
    """What one part's rows see, [S, H, E] -> [S, H*E]; k and v [S, K, E] join its keys and values.

    In a step of one row nothing is hidden: its keys end with itself.
    """
    keys, values = part.keys[layer], part.values[layer]  # [K, E, room], [K, room, E]
    position, end = part.position, part.end
    keys[:, :, position:end] = k.transpose(1, 2, 0)  # [S, K, E] -> [K, E, S]
    values[:, position:end] = v.transpose(1, 0, 2)  # [S, K, E] -> [K, S, E]
    oldest = 0 if window is None else max(0, position + 1 - window)
    scores = grouped(q, config) @ keys[:, :, oldest:end]  # [K, G*S, E] @ [K, E, T] -> [K, G*S, T]
    if part.length > 1:
        by_query = scores.reshape(-1, part.length, end - oldest)  # [K, G*S, T] -> [H, S, T]
        by_query += mask(position, end, oldest, window)  # [H, S, T] + [S, T]
    mixed = softmax(scores) @ values[:, oldest:end]  # [K, G*S, T] @ [K, T, E] -> [K, G*S, E]
    return ungrouped(mixed, part.length)  # [K, G*S, E] -> [S, H*E]


def mlp(x: Array, w: Weights) -> Array:
    """SwiGLU (Shazeer 2020, arXiv 2002.05202), [S, D] -> [S, D]."""
    gate = silu(linear(x, w, "mlp.gate_proj"))  # [S, D] -> [S, F]
    gate *= linear(x, w, "mlp.up_proj")  # [S, D] -> [S, F]
    return linear(gate, w, "mlp.down_proj")  # [S, F] -> [S, D]


def linear(x: Array, w: Weights, name: str) -> Array:
    """[S, in] -> [S, out], with a bias where the checkpoint has one."""
    y = product(x, w[f"{name}.weight"])  # [S, in] @ [in, out] -> [S, out]
    bias = w.get(f"{name}.bias")
    return y if bias is None else y + bias  # [S, out] + [out]


def product(x: Array, matrix: Array) -> Array:
    """[S, in] -> [S, out] with a matrix [out, in].

    The BLAS copies a matrix before it multiplies several rows with it; for few rows that takes
    longer than the product. Row by row, a part of the matrix stays in the processor's cache.
    """
    if not 1 < len(x) <= FEW:
        return x @ matrix.T  # [S, in] @ [in, out] -> [S, out]
    y = np.empty((len(x), 1, len(matrix)), np.float32)  # [S, 1, out]
    part = max(1, CACHED // matrix.shape[1])
    for n in range(0, len(matrix), part):
        some = matrix[n : n + part]  # [part, in]
        np.matmul(x[:, None], some.T, out=y[:, :, n : n + part])  # [S, 1, in] @ [in, part]
    return y[:, 0]  # [S, out]


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467): the last axis's mean square is 1."""
    squares: Array = np.vecdot(x, x)[..., None]  # [..., D] . [..., D] -> [..., 1]
    scaled: Array = x / np.sqrt(squares / x.shape[-1] + eps)  # [..., D] / [..., 1]
    return scaled * weight  # [..., D] * [D]


def silu(x: Array) -> Array:
    """x times its sigmoid, elementwise."""
    with np.errstate(over="ignore"):  # exp is infinite far below zero, where silu is zero
        activated: Array = x / (1 + np.exp(-x))
    return activated


def softmax(x: Array) -> Array:
    """Exponentials of the last axis that add up to 1; x itself is overwritten."""
    x -= x.max(axis=-1, keepdims=True)  # [..., T] - [..., 1]
    np.exp(x, out=x)  # [..., T]
    x /= x.sum(axis=-1, keepdims=True)  # [..., T] / [..., 1]
    return x


def mask(position: int, end: int, oldest: int, window: int | None) -> Array:
    """[S, T]: 0 where a query can see a key, else -inf."""
    age = np.arange(position, end)[:, None] - np.arange(oldest, end)  # [S, 1] - [T] -> [S, T]
    hidden = (age < 0) if window is None else (age < 0) | (age >= window)  # [S, T]
    return np.where(hidden, np.float32(-np.inf), np.float32(0))  # [S, T]


def heads(x: Array, config: Config) -> Array:
    """[S, heads*E] -> [S, heads, E]."""
    return x.reshape(len(x), -1, config.head_dim)  # [S, heads, E]


def grouped(q: Array, config: Config) -> Array:
    """Put the queries of a key-value head together, [S, H, E] -> [K, G*S, E]."""
    by_group = q.reshape(len(q), config.kv_heads, -1, config.head_dim)  # [S, K, G, E]
    return by_group.transpose(1, 2, 0, 3).reshape(config.kv_heads, -1, config.head_dim)


def ungrouped(x: Array, length: int) -> Array:
    """The way back, [K, G*S, E] -> [S, H*E]."""
    by_group = x.reshape(len(x), -1, length, x.shape[-1])  # [K, G, S, E]
    return by_group.transpose(2, 0, 1, 3).reshape(length, -1)  # [S, K, G, E] -> [S, H*E]


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Rotary position embedding (RoFormer, Su et al. 2021, arXiv 2104.09864), [S, heads, E].

    In the half-split convention, as transformers' rotate_half: numbers n and n + E/2 are the axes
    of one plane. Meta's own and RoFormer's code has them interleaved, 2n and 2n + 1.
    """
    axes = x.reshape(len(x), -1, 2, x.shape[-1] // 2)  # [S, heads, 2, E/2]
    turned = axes * cos + axes[:, :, ::-1] * sin  # [S, heads, 2, E/2]
    return turned.reshape(x.shape)  # [S, heads, E]


def rotation(positions: NDArray[np.int64], config: Config) -> tuple[Array, Array]:
    """Cosines and signed sines of the positions' angles, [S, 1, 2, E/2] each: one for all heads."""
    angles = np.outer(positions, frequencies(config))  # [S] x [E/2] -> [S, E/2]
    cos, sin = np.cos(angles), np.sin(angles)  # [S, E/2]
    both = np.stack([cos, cos], axis=1)[:, None], np.stack([-sin, sin], axis=1)[:, None]
    return both[0].astype(np.float32), both[1].astype(np.float32)  # [S, 1, 2, E/2] each


@cache
def frequencies(config: Config) -> NDArray[np.float64]:
    """Radians a position, [E/2], scaled as the model's `rope` says.

    linear: Position Interpolation (Chen et al. 2023, arXiv 2306.15595). llama3: Llama 3.1's, as
    transformers' _compute_llama3_parameters has it.
    """
    rope = config.rope
    plain = rope.theta ** -(np.arange(0, config.head_dim, 2) / config.head_dim)  # [E/2]
    if rope.kind != "llama3":
        return plain / rope.factor  # [E/2]
    turns = rope.original_context * plain / (2 * np.pi)  # [E/2]: in the context it was trained on
    smooth = (turns - rope.low_frequency) / (rope.high_frequency - rope.low_frequency)  # [E/2]
    smooth = smooth.clip(0, 1)  # [E/2]: 0 for slow planes, which are scaled, 1 for fast ones
    return plain * (smooth + (1 - smooth) / rope.factor)  # [E/2]
