"""Files of rounded weights: what was rounded once is mapped at the next load."""

import contextlib
import hashlib
import json
import logging
import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...names import ENGINE_NAME
from .. import settings

FORMAT = 1  # of a file, and of how weights are rounded and joined
_ALIGN = 4096
_log = logging.getLogger(__name__)

Part = dict[str, NDArray[Any]]


class WeightCache:
    """The parts of one checkpoint at one precision: a file a layer, so that every slice finds its.

    A file is written beside its place and then moved there: two processes write the same, and none
    sees half of one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> Part | None:
        """A part, mapped; None where there is none that can be used."""
        path = self._folder / name
        try:
            with path.open("rb") as file:
                mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return _parsed(mapping)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s can't be used and is made again: %s", path, error)
            return None

    def write(self, name: str, part: Part) -> None:
        """Keep a part; where that can't be, it is made again at the next load."""
        temporary = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=f"{name}.", dir=self._folder)
            with os.fdopen(handle, "wb") as file:
                for piece in _pieces(part):
                    file.write(piece)
            os.replace(temporary, self._folder / name)
        except OSError as error:
            _log.warning("rounded weights are not kept in %s: %s", self._folder, error)
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)


def weight_cache_for(folder: Path, precision: str) -> WeightCache | None:
    """Where a checkpoint's rounded weights are kept: in EXO_<ENGINE>_CACHE, else nowhere."""
    root = os.environ.get(f"{settings.PREFIX}CACHE")
    if not root:
        return None
    return WeightCache(Path(root).expanduser() / ENGINE_NAME / identity(folder, precision))


def identity(folder: Path, precision: str) -> str:
    """What changes when the checkpoint or the way to round it does."""
    known = hashlib.sha256(f"{FORMAT} {precision}\n".encode())
    for path in sorted([*folder.glob("*.safetensors"), folder / "config.json"]):
        about = path.stat()
        known.update(f"{path.resolve()} {about.st_size} {about.st_mtime_ns}\n".encode())
    return f"{folder.name[:60]}-{precision}-{known.hexdigest()[:16]}"


def _pieces(part: Part) -> list[Any]:
    """A file's content: the header's length, the JSON header, and each array at a page's begin."""
    entries, end = {}, 0
    for name, numbers in part.items():
        entries[name] = [str(numbers.dtype), list(numbers.shape), end]
        end += numbers.nbytes + -numbers.nbytes % _ALIGN
    text = json.dumps({"size": end, "entries": entries}).encode()
    text += b" " * (-(len(text) + 8) % _ALIGN)
    pieces: list[Any] = [len(text).to_bytes(8, "little") + text]
    for numbers in part.values():
        pieces += [np.ascontiguousarray(numbers).data, b"\0" * (-numbers.nbytes % _ALIGN)]
    return pieces


def _parsed(mapping: mmap.mmap) -> Part:
    """The arrays of a file. Raises ValueError where it is not whole."""
    data = 8 + int.from_bytes(mapping[:8], "little")
    header = json.loads(mapping[8:data])
    if data + header["size"] != len(mapping):
        raise ValueError(f"it has {len(mapping)} bytes, and should have {data + header['size']}")
    part = Part()
    for name, (dtype, shape, begin) in header["entries"].items():
        count = int(np.prod(shape))
        part[name] = np.frombuffer(mapping, dtype, count, data + begin).reshape(shape)
    return part
