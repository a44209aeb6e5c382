"""Weights from safetensors files, memory-mapped: only what the shard's own layers need."""

import mmap
import os
import sys
from collections.abc import Container
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..repository.facts import LARGEST, Facts, RepositoryError, parsed, read_json
from ..repository.watched import WatchedFiles
from .config import Config
from .llama import Array, Model

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
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

    Raises FileNotFoundError where a file that they need is not there, else RepositoryError.
    """
    checkpoint, config = open_checkpoint(folder, config)
    matrix = (config.vocab_size, config.hidden_size)
    first, last = start == 0, end == config.layers - 1
    embedding = head = norm = None
    if first or (last and config.tied):
        embedding = checkpoint.tensor(EMBEDDING, matrix)
    layers = tuple(
        {
            name: checkpoint.tensor(f"model.layers.{n}.{name}", shape)
            for name, shape in layer_shapes(config).items()
        }
        for n in range(start, end + 1)
    )
    if last:
        norm = checkpoint.tensor("model.norm.weight", (config.hidden_size,))
        head = embedding if config.tied else checkpoint.tensor(HEAD, matrix)
    embedding = embedding if first else None
    return Model(config, start, layers, embedding, norm, head, checkpoint.watched())


def open_checkpoint(folder: Path, config: Config) -> tuple["Checkpoint", Config]:
    """A folder's tensors, and the config with `tied` as the tensors have it.

    A head of its own counts, whatever config.json says of tied ones; tied ones have either name
    (transformers, PreTrainedModel.tie_weights).
    """
    checkpoint = Checkpoint(folder)
    if not config.tied or HEAD not in checkpoint:
        return checkpoint, config
    if EMBEDDING in checkpoint:
        return checkpoint, replace(config, tied=False)
    checkpoint.alias(EMBEDDING, HEAD)
    return checkpoint, config


class Checkpoint:
    """The tensors of a folder; a file is opened when the first of its tensors is asked for.

    Names are those of the whole model; files of the model without its head leave "model." out.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, _File] = {}
        self._aliases: dict[str, str] = {}
        self._homes = None if (folder / SINGLE).is_file() else _read_index(folder)

    def __contains__(self, name: str) -> bool:
        return self._stored(name) in self._names

    def alias(self, name: str, other: str) -> None:
        """Give a tensor another name."""
        self._aliases[name] = other

    def watched(self) -> WatchedFiles:
        """The files that arrays are views of."""
        return WatchedFiles({f.path: f.about for f in self._files.values() if f.viewed})

    def tensor(self, name: str, shape: Shape) -> Array:
        """A tensor as float32."""
        return self._file(name, shape).tensor(self._stored(name), shape)

    def rows(self, name: str, shape: Shape) -> "Rows":
        """A matrix that stays in its file."""
        return self._file(name, shape).rows(self._stored(name), shape)

    @property
    def _names(self) -> Container[str]:
        return self._open(SINGLE).header if self._homes is None else self._homes

    def _stored(self, name: str) -> str:
        """A tensor's name in the files."""
        name = self._aliases.get(name, name)
        short = name.removeprefix("model.")
        return short if name not in self._names and short in self._names else name

    def _file(self, name: str, shape: Shape) -> "_File":
        """The file that a tensor is in."""
        if self._homes is None:
            return self._open(SINGLE)
        home = self._homes.get(self._stored(name), "")
        # A name with a folder in it could lead out of the checkpoint.
        if not home or not isinstance(home, str) or Path(home).name != home:
            raise RepositoryError(
                f"{self._folder / INDEX} names no file for {name} {_text_of(shape)}"
            )
        if home not in self._files and not (self._folder / home).is_file():
            raise FileNotFoundError(f"{self._folder / home} is not there; {name} is in it")
        return self._open(home)

    def _open(self, home: str) -> "_File":
        if home not in self._files:
            self._files[home] = _File.open(self._folder / home)
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
        numbers = self._numbers[which]
        if self._dtype == "BF16":
            wide: Array = (numbers.astype(np.uint32) << 16).view(np.float32)
        else:
            wide = numbers.astype(np.float32)
        if isinstance(which, slice):
            first, stop, _ = which.indices(self.shape[0])
            size = self.shape[1] * self._numbers.itemsize
            _give_back(self._mapping, self._begin + first * size, max(0, stop - first) * size)
        return wide


@dataclass
class _File:
    """One safetensors file: 8 bytes with the header's length, the JSON header, the data.

    about: as it was when it was mapped. viewed: whether arrays are views of it.
    """

    path: Path
    about: os.stat_result
    mapping: mmap.mmap
    header: dict[str, Any]
    data: int
    viewed: bool = False

    @classmethod
    def open(cls, path: Path) -> "_File":
        """Map a file and read its header."""
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            about = os.fstat(file.fileno())
            size = about.st_size
            if length > size - 8:
                raise RepositoryError(
                    f"{path} is no safetensors file, or cut short at {size} bytes; "
                    "delete it and download it again"
                )
            if length > LARGEST:
                raise RepositoryError(
                    f"{path} has a header of {length} bytes, and no model's has more than "
                    f"{LARGEST}; delete it and download it again"
                )
            header = parsed(path, file.read(length), "'s header")
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return cls(path, about, mapping, header, 8 + length)

    def tensor(self, name: str, shape: Shape) -> Array:
        """A tensor as float32: a view of the file where that is possible, else converted."""
        begin, dtype = self._find(name, shape)
        if dtype != "F32":
            return _converted(self.mapping, begin, dtype, prod(shape)).reshape(shape)
        self.viewed = True
        values = np.frombuffer(self.mapping, _DTYPES[dtype], prod(shape), begin).reshape(shape)
        # A header of an odd length leaves the data unaligned, which BLAS can't read.
        return np.require(values, np.float32, ["ALIGNED"])

    def rows(self, name: str, shape: Shape) -> Rows:
        """A matrix that stays in the file."""
        self.viewed = True
        return Rows(self.mapping, *self._find(name, shape), shape)

    def _find(self, name: str, shape: Shape) -> tuple[int, str]:
        """Where a tensor begins, and its dtype."""
        entry = self.header.get(name)
        if not isinstance(entry, dict):
            raise RepositoryError(f"{self.path} has no tensor {name} {_text_of(shape)}")
        dtype, held = entry.get("dtype"), entry.get("shape")
        if held != list(shape):
            raise RepositoryError(
                f"{self.path}: {name} has the shape {_text_of(held)}, "
                f"but by config.json it should have {_text_of(shape)}"
            )
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            known = ", ".join(_DTYPES)
            raise RepositoryError(f"{self.path}: {name} has the dtype {dtype}, none of {known}")
        size = prod(shape) * _DTYPES[dtype].itemsize
        offsets = entry.get("data_offsets")
        begin = offsets[0] if isinstance(offsets, list) and offsets else None
        if type(begin) is not int or begin < 0 or offsets != [begin, begin + size]:
            raise RepositoryError(
                f"{self.path}: {name} stands at {offsets}, which are not its {size} bytes; "
                "delete it and download it again"
            )
        begin += self.data
        if begin + size > len(self.mapping):
            raise RepositoryError(
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
        raise FileNotFoundError(Facts(folder).no_weights(f"{SINGLE} nor {INDEX}"))
    homes = read_json(path).get("weight_map")
    if not isinstance(homes, dict):
        raise RepositoryError(f"{path} has no weight_map; delete it and download it again")
    return homes


def _text_of(shape: Any) -> str:
    """A shape as (2, 3)."""
    return f"({', '.join(map(str, shape))})" if isinstance(shape, list | tuple) else str(shape)
