"""The Llama family in NumPy: pure functions, with the shapes beside every line that has a matrix.

S  positions of this step             D  hidden size          V  vocabulary
T  positions that can be attended to  F  intermediate size    L  layers
H  query heads   K  key-value heads   G  query heads that share a key-value head   E  head size

A layer's weights are named as in the checkpoint, without its "model.layers.N."; matrices are
[out, in] as there.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import Config

BLOCK = 256  # a long prompt runs in blocks, so that its scores need [H, BLOCK, T], not [H, T, T]

Array = NDArray[np.float32]
Weights = dict[str, Array]


@dataclass(frozen=True)
class Model:
    """Consecutive layers, from `start` on; the first shard embeds, the last has norm and head."""

    config: Config
    start: int
    layers: tuple[Weights, ...]
    embedding: Array | None  # [V, D]
    norm: Array | None  # [D]
    head: Array | None  # [V, D]

    @property
    def nbytes(self) -> int:
        """What the weights take; tied ones once."""
        own = [self.embedding, self.norm, self.head, *(w for x in self.layers for w in x.values())]
        known = {id(w): w.nbytes for w in own if w is not None}
        return sum(known.values())


def forward(x: NDArray[Any], position: int, keys: Array, values: Array, model: Model) -> Array:
    """Run x through the model's layers; its first row stands at `position`.

    x: ids [S] where the model embeds, else hidden states [S, D].
    keys, values: [L, K, E, room] and [L, K, room, E], filled up to `position`; this step adds its.
    Returns hidden states [S, D], or the last position's logits [1, V] where the model has a head.
    """
    blocks = [
        run_layers(x[n : n + BLOCK], position + n, keys, values, model)
        for n in range(0, len(x), BLOCK)
    ]
    if model.norm is None or model.head is None:
        return np.concatenate(blocks)  # [S, D]
    last = rms_norm(blocks[-1][-1:], model.norm, model.config.norm_eps)  # [S, D] -> [1, D]
    return last @ model.head.T  # [1, D] @ [D, V] -> [1, V]


def run_layers(x: NDArray[Any], position: int, keys: Array, values: Array, model: Model) -> Array:
    """Ids [S] or hidden states [S, D] -> hidden states [S, D]."""
    config = model.config
    if model.embedding is not None:
        if x.max() >= len(model.embedding):
            raise ValueError(f"there is no token {x.max()}: the model has {len(model.embedding)}")
        x = model.embedding[x]  # [V, D] at [S] -> [S, D]
    cos, sin = rotation(position, len(x), config)  # [S, 1, 2, E/2] each
    for n, w in enumerate(model.layers):
        window = config.windows[model.start + n]
        normed = rms_norm(x, w["input_layernorm.weight"], config.norm_eps)  # [S, D]
        attended = attention(normed, position, cos, sin, keys[n], values[n], window, w, config)
        x = x + attended  # [S, D]
        normed = rms_norm(x, w["post_attention_layernorm.weight"], config.norm_eps)  # [S, D]
        x = x + mlp(normed, w)  # [S, D]
    return x


def attention(
    x: Array,
    position: int,
    cos: Array,
    sin: Array,
    keys: Array,
    values: Array,
    window: int | None,
    w: Weights,
    config: Config,
) -> Array:
    """Grouped-query attention, [S, D] -> [S, D]; keys [K, E, room] and values [K, room, E] grow."""
    length, end = len(x), position + len(x)
    q = heads(linear(x, w, "self_attn.q_proj"), config)  # [S, D] -> [S, H, E]
    k = heads(linear(x, w, "self_attn.k_proj"), config)  # [S, D] -> [S, K, E]
    v = heads(linear(x, w, "self_attn.v_proj"), config)  # [S, D] -> [S, K, E]
    if config.qk_norm:
        q = rms_norm(q, w["self_attn.q_norm.weight"], config.norm_eps)  # [S, H, E]
        k = rms_norm(k, w["self_attn.k_norm.weight"], config.norm_eps)  # [S, K, E]
    q = rotate(q, cos, sin) * config.head_dim**-0.5  # [S, H, E]
    keys[:, :, position:end] = rotate(k, cos, sin).transpose(1, 2, 0)  # [S, K, E] -> [K, E, S]
    values[:, position:end] = v.transpose(1, 0, 2)  # [S, K, E] -> [K, S, E]
    oldest = 0 if window is None else max(0, position + 1 - window)
    scores = grouped(q, config) @ keys[:, :, oldest:end]  # [K, G*S, E] @ [K, E, T] -> [K, G*S, T]
    if length > 1:
        by_query = scores.reshape(-1, length, end - oldest)  # [K, G*S, T] -> [H, S, T]
        by_query += mask(position, end, oldest, window)  # [H, S, T] + [S, T]
    mixed = softmax(scores) @ values[:, oldest:end]  # [K, G*S, T] @ [K, T, E] -> [K, G*S, E]
    return linear(ungrouped(mixed, length), w, "self_attn.o_proj")  # [S, H*E] -> [S, D]


def mlp(x: Array, w: Weights) -> Array:
    """SwiGLU, [S, D] -> [S, D]."""
    gate = silu(linear(x, w, "mlp.gate_proj"))  # [S, D] -> [S, F]
    gate *= linear(x, w, "mlp.up_proj")  # [S, D] -> [S, F]
    return linear(gate, w, "mlp.down_proj")  # [S, F] -> [S, D]


def linear(x: Array, w: Weights, name: str) -> Array:
    """[S, in] -> [S, out], with a bias where the checkpoint has one."""
    y = x @ w[f"{name}.weight"].T  # [S, in] @ [in, out] -> [S, out]
    bias = w.get(f"{name}.bias")
    return y if bias is None else y + bias  # [S, out] + [out]


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """Scale the last axis to a mean square of 1."""
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
    """Rotary position embedding, [S, heads, E]: the halves of E are the planes' two axes."""
    axes = x.reshape(len(x), -1, 2, x.shape[-1] // 2)  # [S, heads, 2, E/2]
    turned = axes * cos + axes[:, :, ::-1] * sin  # [S, heads, 2, E/2]
    return turned.reshape(x.shape)  # [S, heads, E]


def rotation(position: int, length: int, config: Config) -> tuple[Array, Array]:
    """Cosines and signed sines of the positions' angles, [S, 1, 2, E/2] each: one for all heads."""
    angles = np.outer(np.arange(position, position + length), frequencies(config))  # [S, E/2]
    cos, sin = np.cos(angles), np.sin(angles)  # [S, E/2]
    both = np.stack([cos, cos], axis=1)[:, None], np.stack([-sin, sin], axis=1)[:, None]
    return both[0].astype(np.float32), both[1].astype(np.float32)  # [S, 1, 2, E/2] each


@cache
def frequencies(config: Config) -> NDArray[np.float64]:
    """Radians a position, [E/2], scaled as the model's `rope` says."""
    rope = config.rope
    plain = rope.theta ** -(np.arange(0, config.head_dim, 2) / config.head_dim)  # [E/2]
    if rope.kind != "llama3":
        return plain / rope.factor  # [E/2]
    turns = rope.original_context * plain / (2 * np.pi)  # [E/2]: in the context it was trained on
    smooth = (turns - rope.low_frequency) / (rope.high_frequency - rope.low_frequency)  # [E/2]
    smooth = smooth.clip(0, 1)  # [E/2]: 0 for slow planes, which are scaled, 1 for fast ones
    return plain * (smooth + (1 - smooth) / rope.factor)  # [E/2]
