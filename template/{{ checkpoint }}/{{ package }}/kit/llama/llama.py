"""The Llama family in NumPy: pure functions, with the shapes beside every line that has a matrix.

S  positions of a request's step      D  hidden size          V  vocabulary
R  rows of all requests in a step     B  requests in a step
T  positions that can be attended to  F  intermediate size    L  layers
H  query heads   K  key-value heads   G  query heads that share a key-value head   E  head size

A layer's weights are named as in the checkpoint, without its "model.layers.N."; matrices are
[out, in] as there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ids import refuse_unknown
from ..repository.watched import WatchedFiles
from .config import Config
from .refusals import refuse_width
from .rotation import rotations

FEW = 6  # rows; for more than so many the BLAS's own way is as fast, or faster
CACHED = 1 << 17  # numbers of a matrix that stay in a core's cache meanwhile

Array = NDArray[np.float32]
Weights = dict[str, Array]


@dataclass(frozen=True)
class Part:
    """The rows of one request in a step: `length` of them, the first at `position`.

    keys [L, K, E, room] and values [L, K, room, E] are filled up to there; the step adds its own.
    What is behind those is anything, NaN too.
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


@dataclass(frozen=True)
class Operations:
    """What a model is computed with: this module's functions, or a device's with their arguments.

    The last argument of the larger ones is the whole table, for the smaller ones that they call.
    """

    embed: Callable[..., Array]
    rms_norm: Callable[..., Array]
    linear: Callable[..., Array]
    rotate: Callable[..., Array]
    attend: Callable[..., Array]
    attention: Callable[..., Array]
    mlp: Callable[..., Array]
    layer: Callable[..., Array]
    logits: Callable[..., Array]


def forward(
    x: NDArray[Any], parts: Sequence[Part], model: Model, op: Operations | None = None
) -> Array:
    """Run the rows of one or several requests, one after the other in x, through the layers.

    x: ids [R] where the model embeds, else hidden states [R, D]; R: the rows of all parts together.
    op: what they are computed with; the reference's operations where it is None.
    Returns hidden states [R, D], or the logits of each part's last row [B, V] where the model has a
    head; B: the number of parts.
    """
    config, op = model.config, op or REFERENCE
    if model.embedding is not None:
        refuse_unknown(x, len(model.embedding))
        x = op.embed(x, model.embedding)  # [R] -> [R, D]
    else:
        refuse_width(x, config.hidden_size)
    spans = [(part.position, part.end) for part in parts]
    cos, sin = rotations(spans, config)  # [R, 1, 2, E/2] each
    for n, w in enumerate(model.layers):
        window = config.windows[model.start + n]
        x = op.layer(x, parts, n, cos, sin, window, w, config, op)  # [R, D]
    if model.norm is None or model.head is None:
        return x  # [R, D]
    ends = np.cumsum([part.length for part in parts]) - 1  # [B]
    return op.logits(x[ends], model.norm, model.head, config, op)  # [R, D] at [B] -> [B, V]


def embed(ids: NDArray[Any], embedding: Array) -> Array:
    """Ids [R] to their rows, [V, D] at [R] -> [R, D]."""
    rows: Array = embedding[ids]
    return rows


def logits(x: Array, norm: Array, head: Array, config: Config, op: Operations) -> Array:
    """The last rows' logits, [B, D] -> [B, V]."""
    return op.linear(op.rms_norm(x, norm, config.norm_eps), head, None)  # [B, D] @ [D, V]


def layer(
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
    """A whole layer, the n-th of the parts', [R, D] -> [R, D]."""
    normed = op.rms_norm(x, w["input_layernorm.weight"], config.norm_eps)  # [R, D]
    x = x + op.attention(normed, parts, n, cos, sin, window, w, config, op)  # [R, D]
    normed = op.rms_norm(x, w["post_attention_layernorm.weight"], config.norm_eps)  # [R, D]
    return x + op.mlp(normed, w, op)  # [R, D]


def attention(
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
    """Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245), [R, D] -> [R, D].

    The products are of all rows, but each sees its own part.

    n: which of the parts' layers this is.
    """
    q = heads(project(x, w, "self_attn.q_proj", op), config)  # [R, D] -> [R, H, E]
    k = heads(project(x, w, "self_attn.k_proj", op), config)  # [R, D] -> [R, K, E]
    v = heads(project(x, w, "self_attn.v_proj", op), config)  # [R, D] -> [R, K, E]
    if config.qk_norm:
        q = op.rms_norm(q, w["self_attn.q_norm.weight"], config.norm_eps)  # [R, H, E]
        k = op.rms_norm(k, w["self_attn.k_norm.weight"], config.norm_eps)  # [R, K, E]
    q = op.rotate(q, cos, sin) * config.head_dim**-0.5  # [R, H, E]
    k = op.rotate(k, cos, sin)  # [R, K, E]
    mixed, row = [], 0
    for part in parts:
        own = slice(row, row + part.length)  # S of the R rows
        mixed.append(op.attend(q[own], k[own], v[own], part, n, window, config))  # [S, H*E]
        row = own.stop
    return project(np.concatenate(mixed), w, "self_attn.o_proj", op)  # [R, H*E] -> [R, D]


def attend(
    q: Array, k: Array, v: Array, part: Part, n: int, window: int | None, config: Config
) -> Array:
    """What one part's rows see, [S, H, E] -> [S, H*E]; k and v [S, K, E] join its keys and values.

    In a step of one row nothing is hidden: its keys end with itself.
    """
    keys, values = part.keys[n], part.values[n]  # [K, E, room], [K, room, E]
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


def mlp(x: Array, w: Weights, op: Operations) -> Array:
    """SwiGLU (Shazeer 2020, arXiv 2002.05202), [S, D] -> [S, D]."""
    gate = silu(project(x, w, "mlp.gate_proj", op))  # [S, D] -> [S, F]
    gate *= project(x, w, "mlp.up_proj", op)  # [S, D] -> [S, F]
    return project(gate, w, "mlp.down_proj", op)  # [S, F] -> [S, D]


def project(x: Array, w: Weights, name: str, op: Operations) -> Array:
    """[S, in] -> [S, out], with a bias where the checkpoint has one."""
    return op.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def linear(x: Array, weight: Array, bias: Array | None) -> Array:
    """[S, in] -> [S, out] with a matrix [out, in], and a bias [out] where there is one."""
    y = product(x, weight)  # [S, in] @ [in, out] -> [S, out]
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


REFERENCE = Operations(embed, rms_norm, linear, rotate, attend, attention, mlp, layer, logits)
