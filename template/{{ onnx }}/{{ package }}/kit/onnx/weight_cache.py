"""Files of rounded weights: what was rounded once is mapped at the next load."""

import contextlib
import hashlib
import json
import logging
import mmap
import os
import stat
import tempfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...names import ENGINE_NAME
from .. import settings
from ..repository.facts import LARGEST

FORMAT = 1  # of a file, and of how weights are rounded and joined
_ALIGN = 4096
_log = logging.getLogger(__name__)

Part = dict[str, NDArray[Any]]
Forms = dict[str, tuple[str, tuple[int, ...]]]  # dtype and shape of each array


class WeightCache:
    """The parts of one checkpoint at one precision: a file a layer, so that every slice finds its.

    A file is written beside its place and then moved there: two processes write the same, and none
    sees half of one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str, forms: Forms) -> Part | None:
        """A part, mapped; None where there is none that can be used.

        forms: what has to be in it.
        """
        path = self._folder / name
        try:
            with os.fdopen(self._opened(path), "rb") as file:
                mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return _parsed(mapping, forms)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            _log.warning("%s can't be used and is made again: %s", path, error)
            return None

    def _opened(self, path: Path) -> int:
        """A plain file of ours, in a folder that nobody else can write to. Raises OSError."""
        _refuse_others(os.lstat(self._folder), stat.S_ISDIR, self._folder)
        # Without waiting: who has a folder like ours may have a pipe in it.
        flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        handle = os.open(path, os.O_RDONLY | flags | getattr(os, "O_BINARY", 0))
        try:
            _refuse_others(os.fstat(handle), stat.S_ISREG, path)
        except OSError:
            os.close(handle)
            raise
        return handle

    def write(self, name: str, part: Part) -> None:
        """Keep a part; where that can't be, it is made again at the next load."""
        temporary = None
        try:
            self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            _refuse_others(os.lstat(self._folder), stat.S_ISDIR, self._folder)
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
    owner = f"{ENGINE_NAME}-{os.getuid()}" if hasattr(os, "getuid") else ENGINE_NAME
    return WeightCache(Path(root).expanduser() / owner / identity(folder, precision))


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


def _parsed(mapping: mmap.mmap, forms: Forms) -> Part:
    """The arrays of a file. Raises ValueError where they are not those that are expected."""
    data = 8 + int.from_bytes(mapping[:8], "little")
    if data > min(len(mapping), LARGEST):
        raise ValueError("its header is too long")
    header = json.loads(mapping[8:data])
    if data + header["size"] != len(mapping):
        raise ValueError(f"it has {len(mapping)} bytes, and should have {data + header['size']}")
    forms_of_file = {
        name: (dtype, tuple(shape)) for name, (dtype, shape, _) in header["entries"].items()
    }
    if forms_of_file != forms:
        raise ValueError("it holds other arrays than this model's")
    part = Part()
    for name, (dtype, shape, begin) in header["entries"].items():
        if type(begin) is not int or begin < 0:
            raise ValueError(f"{name} begins at {begin!r}")
        part[name] = np.frombuffer(mapping, dtype, prod(shape), data + begin).reshape(shape)
    return part


def _refuse_others(about: os.stat_result, is_kind: Callable[[int], bool], path: Path) -> None:
    """Raise PermissionError for what is of another kind, another user, or open to others."""
    if not is_kind(about.st_mode):
        raise PermissionError(f"{path} is no plain file or folder")
    if hasattr(os, "geteuid") and (about.st_uid != os.geteuid() or about.st_mode & 0o022):
        raise PermissionError(f"{path} is another user's, or others can write to it")
