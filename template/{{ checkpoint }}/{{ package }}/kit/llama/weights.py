"""Weights from safetensors files, memory-mapped: only what the shard's own layers need."""

import json
import mmap
import sys
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .config import CheckpointError, Config, read_whole
from .llama import Array, Model

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
LARGEST_HEADER = 100_000_000  # bytes, as the safetensors library has it; of an index too
PIECE = 1 << 22  # elements that are converted at a time: only so much is mapped beside the result

# NumPy has no bfloat16: it is the upper half of a float32.
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}

Shape = tuple[int, ...]


def layer_shapes(config: Config) -> dict[str, Shape]:
    """The tensors of one layer, by their names after "model.layers.N."."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, pairs = config.heads * config.head_dim, config.kv_heads * config.head_dim
    shapes: dict[str, Shape] = {"input_layernorm.weight": (hidden,)}
    matrices = (
        ("self_attn.q_proj", queries, hidden, config.qkv_bias),
        ("self_attn.k_proj", pairs, hidden, config.qkv_bias),
        ("self_attn.v_proj", pairs, hidden, config.qkv_bias),
        ("self_attn.o_proj", hidden, queries, config.output_bias),
        ("mlp.gate_proj", inner, hidden, config.mlp_bias),
        ("mlp.up_proj", inner, hidden, config.mlp_bias),
        ("mlp.down_proj", hidden, inner, config.mlp_bias),
    )
    for name, outputs, inputs, bias in matrices:
        shapes[f"{name}.weight"] = (outputs, inputs)
        if bias:
            shapes[f"{name}.bias"] = (outputs,)
    if config.qk_norm:
        shapes["self_attn.q_norm.weight"] = (config.head_dim,)
        shapes["self_attn.k_norm.weight"] = (config.head_dim,)
    shapes["post_attention_layernorm.weight"] = (hidden,)
    return shapes


def load_model(folder: Path, config: Config, start: int, end: int) -> Model:
    """Layers `start` to `end`, both included, of the checkpoint in a folder.

    Raises FileNotFoundError where a file that they need is not there, else CheckpointError.
    """
    checkpoint = Checkpoint(folder)
    matrix = (config.vocab_size, config.hidden_size)
    first, last = start == 0, end == config.layers - 1
    embedding = head = norm = None
    if first or (last and config.tied):
        embedding = checkpoint.tensor("model.embed_tokens.weight", matrix)
    layers = tuple(
        {
            name: checkpoint.tensor(f"model.layers.{n}.{name}", shape)
            for name, shape in layer_shapes(config).items()
        }
        for n in range(start, end + 1)
    )
    if last:
        norm = checkpoint.tensor("model.norm.weight", (config.hidden_size,))
        head = embedding if config.tied else checkpoint.tensor("lm_head.weight", matrix)
    return Model(config, start, layers, embedding if first else None, norm, head)


class Checkpoint:
    """The tensors of a folder; a file is opened when the first of its tensors is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._homes = None if (folder / SINGLE).is_file() else _read_index(folder)
        self._files: dict[str, _File] = {}

    def tensor(self, name: str, shape: Shape) -> Array:
        """A tensor as float32."""
        return self._file(name, shape).tensor(name, shape)

    def rows(self, name: str, shape: Shape) -> "Rows":
        """A matrix that stays in its file."""
        return self._file(name, shape).rows(name, shape)

    def _file(self, name: str, shape: Shape) -> "_File":
        """The file that a tensor is in."""
        home = SINGLE
        if self._homes is not None:
            home = self._homes.get(name, "")
            # A name with a folder in it could lead out of the checkpoint.
            if not home or not isinstance(home, str) or Path(home).name != home:
                raise CheckpointError(
                    f"{self._folder / INDEX} names no file for {name} {_spelled(shape)}"
                )
        if home not in self._files:
            path = self._folder / home
            if not path.is_file():
                raise FileNotFoundError(f"{path} is not there; {name} is in it")
            self._files[home] = _File.open(path)
        return self._files[home]


class Rows:
    """A matrix that stays in its file: rows are float32 when they are asked for."""

    def __init__(self, mapping: mmap.mmap, begin: int, dtype: str, shape: Shape) -> None:
        self.shape = shape
        self._mapping, self._begin, self._dtype = mapping, begin, dtype
        numbers = np.frombuffer(mapping, _DTYPES[dtype], prod(shape), begin)
        self._numbers = numbers.reshape(shape)

    def __getitem__(self, which: Any) -> Array:
        """The rows at these places, or of a slice, whose pages are given back."""
        found = self._numbers[which]
        if self._dtype == "BF16":
            wide: Array = (found.astype(np.uint32) << 16).view(np.float32)
        else:
            wide = found.astype(np.float32)
        if isinstance(which, slice):
            first, stop, _ = which.indices(self.shape[0])
            size = self.shape[1] * self._numbers.itemsize
            _give_back(self._mapping, self._begin + first * size, max(0, stop - first) * size)
        return wide


@dataclass(frozen=True)
class _File:
    """One safetensors file: 8 bytes with the header's length, the JSON header, the data."""

    path: Path
    mapping: mmap.mmap
    header: dict[str, Any]
    data: int

    @classmethod
    def open(cls, path: Path) -> "_File":
        """Map a file and read its header."""
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if length > size - 8:
                raise CheckpointError(
                    f"{path} is no safetensors file, or cut short at {size} bytes; "
                    "delete it and download it again"
                )
            if length > LARGEST_HEADER:
                raise CheckpointError(
                    f"{path} has a header of {length} bytes, and no model's has more than "
                    f"{LARGEST_HEADER}; delete it and download it again"
                )
            header = _read_json(path, file.read(length))
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return cls(path, mapping, header, 8 + length)

    def tensor(self, name: str, shape: Shape) -> Array:
        """A tensor as float32: a view of the file where that is possible, else converted."""
        begin, dtype = self._find(name, shape)
        if dtype != "F32":
            return _converted(self.mapping, begin, dtype, prod(shape)).reshape(shape)
        found = np.frombuffer(self.mapping, _DTYPES[dtype], prod(shape), begin).reshape(shape)
        # A header of an odd length leaves the data unaligned, which BLAS can't read.
        return np.require(found, np.float32, ["ALIGNED"])

    def rows(self, name: str, shape: Shape) -> Rows:
        """A matrix that stays in the file."""
        return Rows(self.mapping, *self._find(name, shape), shape)

    def _find(self, name: str, shape: Shape) -> tuple[int, str]:
        """Where a tensor begins, and its dtype."""
        entry = self.header.get(name)
        if not isinstance(entry, dict):
            raise CheckpointError(f"{self.path} has no tensor {name} {_spelled(shape)}")
        dtype, found = entry.get("dtype"), entry.get("shape")
        if found != list(shape):
            raise CheckpointError(
                f"{self.path}: {name} has the shape {_spelled(found)}, "
                f"but by config.json it should have {_spelled(shape)}"
            )
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            known = ", ".join(_DTYPES)
            raise CheckpointError(f"{self.path}: {name} has the dtype {dtype}, none of {known}")
        size = prod(shape) * _DTYPES[dtype].itemsize
        offsets = entry.get("data_offsets")
        begin = offsets[0] if isinstance(offsets, list) and offsets else None
        if type(begin) is not int or begin < 0 or offsets != [begin, begin + size]:
            raise CheckpointError(
                f"{self.path}: {name} stands at {offsets}, which are not its {size} bytes; "
                "delete it and download it again"
            )
        begin += self.data
        if begin + size > len(self.mapping):
            raise CheckpointError(
                f"{self.path} is cut short: it has {len(self.mapping)} bytes, and {name} ends at "
                f"{begin + size}; delete it and download it again"
            )
        return begin, dtype


def _converted(mapping: mmap.mmap, begin: int, dtype: str, count: int) -> Array:
    """Half-precision numbers as float32, piece by piece."""
    numbers = np.empty(count, np.float32)
    bits = numbers.view(np.uint32)
    for n in range(0, count, PIECE):
        piece = slice(n, min(n + PIECE, count))
        offset, length = begin + 2 * n, piece.stop - n
        half = np.frombuffer(mapping, _DTYPES[dtype], length, offset)
        if dtype == "BF16":
            np.left_shift(half, 16, out=bits[piece], dtype=np.uint32)
        else:
            numbers[piece] = half
        _give_back(mapping, offset, 2 * length)
    return numbers


def _give_back(mapping: mmap.mmap, begin: int, length: int) -> None:
    """Let the system take the pages that were read; they count as this process's memory."""
    if sys.platform != "win32":
        page = begin - begin % mmap.PAGESIZE
        mapping.madvise(mmap.MADV_DONTNEED, page, begin + length - page)


def _read_index(folder: Path) -> dict[str, Any]:
    """Which file has which tensor."""
    path = folder / INDEX
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has neither {SINGLE} nor {INDEX}; the model's weights are in one of them"
        )
    homes = _read_json(path, read_whole(path, LARGEST_HEADER)).get("weight_map")
    if not isinstance(homes, dict):
        raise CheckpointError(f"{path} has no weight_map; delete it and download it again")
    return homes


def _read_json(path: Path, text: bytes) -> dict[str, Any]:
    """The object in a header or an index."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} has a header that is not JSON: {error}; delete it and download it again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} has a header that is no object; delete it and download it again"
        )
    return content


def _spelled(shape: Any) -> str:
    """A shape as (2, 3)."""
    return f"({', '.join(map(str, shape))})" if isinstance(shape, list | tuple) else str(shape)
