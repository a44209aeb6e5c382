"""Bytes to a small model's checkpoint that is broken somewhere: the reader says so, or reads it."""

import json
import struct
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2, 7, 1 << 20, 1 << 31, 1 << 63, 10**30, 0.5, 1e300, "", "F32", "BF16",
    "F64", "../x", [], [0], [0, 1], [0, -1], [1 << 62, 1 << 62], {}, {"a": {}}, "\ud800",
)  # fmt: skip


class Bytes:
    """Small choices out of a fuzzer's bytes; zeros at their end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def below(self, most: int) -> int:
        piece = self._data[self._at : self._at + 3]
        self._at += 3
        return int.from_bytes(piece, "little") % most if most > 1 else 0

    def left(self) -> bool:
        return self._at < len(self._data)


def mutated(choice: Bytes, value: Any) -> Any:
    """The same object with one value, somewhere in it, that is another."""
    if isinstance(value, dict) and value and choice.below(8):
        keys = list(value)
        key = keys[choice.below(len(keys))]
        if not choice.below(6):
            return {k: v for k, v in value.items() if k != key}
        return value | {key: mutated(choice, value[key])}
    if isinstance(value, list) and value and choice.below(4):
        n = choice.below(len(value))
        return [*value[:n], mutated(choice, value[n]), *value[n + 1 :]]
    if isinstance(value, int) and choice.below(2):
        return value + choice.below(9) - 4
    return VALUES[choice.below(len(VALUES))]


def attack_in(folder: Path, package: str) -> Callable[[bytes], None]:
    """Function of a fuzzer's bytes; only the reader's own errors are no finding."""
    config_module = import_module(f"{package}.kit.llama.config")
    weights = import_module(f"{package}.kit.llama.weights")
    made = import_module(f"{package}.kit.llama.random_checkpoint")
    llama = import_module(f"{package}.kit.llama.llama")
    cache = import_module(f"{package}.kit.llama.cache")
    del llama, cache
    small = made.DEFAULT | {
        "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 257,
    }  # fmt: skip
    made.write_checkpoint(folder, small, dtype="BF16", files=2)
    parts = {p.name: p.read_bytes() for p in folder.glob("*.safetensors")}
    index = json.loads((folder / weights.INDEX).read_text())

    def attack(data: bytes) -> None:
        choice = Bytes(data)
        config, homes, names = small, index, sorted(parts)
        for _ in range(choice.below(3)):
            config = mutated(choice, config)
        for _ in range(choice.below(3)):
            homes = mutated(choice, homes)
        files = {"config.json": json.dumps(config), weights.INDEX: json.dumps(homes)}
        for name, text in files.items():
            (folder / name).write_text(text)
        for name in names:
            (folder / name).write_bytes(broken(choice, parts[name]))
        try:
            read = config_module.Config.from_folder(folder)
            if read.layers <= 64:
                weights.load_model(folder, read, 0, read.layers - 1)
        except (config_module.RepositoryError, FileNotFoundError):
            return

    return attack


def broken(choice: Bytes, file: bytes) -> bytes:
    """A safetensors file with other values in its header, or with bytes that are others."""
    length = struct.unpack("<Q", file[:8])[0]
    header, data = json.loads(file[8 : 8 + length]), file[8 + length :]
    for _ in range(choice.below(4)):
        header = mutated(choice, header)
    text = json.dumps(header).encode()
    whole = struct.pack("<Q", len(text)) + text + data
    how = choice.below(6)
    if how == 1:
        return whole[: choice.below(len(whole) + 1)]
    if how == 2:
        at = choice.below(len(whole))
        return whole[:at] + bytes([choice.below(256)]) + whole[at + 1 :]
    if how == 3:
        return struct.pack("<Q", (1 << choice.below(64)) - choice.below(3) & (1 << 64) - 1) + text
    return whole
