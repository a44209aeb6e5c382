"""What a board has: the runtime library, compiled models, and what its driver tells."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..repository.files import downloads_folder
from ..server.models import Served
from .runtime import NAME, RuntimeLibraryError

_FOLDERS = ("usr/lib", "usr/local/lib", "usr/lib/aarch64-linux-gnu")
_DEPTH = 3  # folders below the one that is named
_MOST = 500  # models
_EDGE = 1 << 20  # bytes at a file's ends that are looked at
_TOOLKIT = re.compile(rb"toolkit[\x00-\x20\w\"':=-]{0,24}?(\d\.\d{1,2}\.\d{1,2})")
_LOAD, _DRIVER = "sys/kernel/debug/rknpu/load", "sys/kernel/debug/rknpu/version"


def find_library(setting: str = "", root: Path = Path("/")) -> Path | None:
    """librkllmrt.so: where the setting says, else where installers put it; None without one."""
    if setting:
        return Path(setting)
    folders = [root / folder for folder in _FOLDERS]
    if root == Path("/"):
        folders.append(Path.home() / "RKLLAMA" / "lib")
    try:
        return next((f / NAME for f in folders if (f / NAME).exists()), None)
    except OSError:
        return None


def model_folders(setting: str = "") -> list[Path]:
    """Where compiled models are kept: as the setting says, else exo's downloads and rkllama's."""
    if setting:
        return [Path(part) for part in setting.split(os.pathsep) if part]
    return [downloads_folder("").parent / "downloads", Path.home() / "RKLLAMA" / "models"]


def find_models(setting: str = "") -> dict[str, Path]:
    """The .rkllm files by name: the file's, or its folder's where the file's says nothing."""
    models = dict[str, Path]()
    for folder in model_folders(setting):
        for path in _files(folder, _DEPTH):
            name = path.stem
            if name.lower() in ("model", "rkllm") or name in models:
                name = path.parent.name if path.parent.name not in models else str(path)
            models.setdefault(name, path)
            if len(models) >= _MOST:
                return models
    return models


def _files(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for path in entries:
        if path.suffix == ".rkllm" and path.is_file():
            yield path
        elif depth and path.is_dir() and not path.is_symlink():
            yield from _files(path, depth - 1)


def served(models: dict[str, Path]) -> list[Served]:
    """The models as a server's are listed, with what their files tell."""
    return [Served(name, note=about(path)) for name, path in models.items()]


def about(path: Path) -> str:
    """A model's size, and its toolkit's version where the file tells it."""
    try:
        size, version = path.stat().st_size, toolkit_of(path)
    except OSError as error:
        return f"can't be read: {error.strerror}"
    toolkit = f"toolkit {version}" if version else "its file tells no toolkit's version"
    return f"{size / 1e9:.1f} GB, {toolkit}"


def toolkit_of(path: Path) -> str | None:
    """The version of the toolkit that a model was converted with, where its file tells."""
    with path.open("rb") as file:
        ends = file.read(_EDGE)
        file.seek(max(path.stat().st_size - _EDGE, len(ends)))
        ends += file.read(_EDGE)
    versions = set(_TOOLKIT.findall(ends))
    return versions.pop().decode() if len(versions) == 1 else None


def refuse_mismatch(path: Path, runtime: str) -> None:
    """A model and a runtime that are known not to go together. Raises RuntimeLibraryError.

    Models of an older toolkit run on a newer runtime, but 1.3.0 takes a wrong end token from those
    of 1.2 (rknn-llm#534), which is watched for; the other way round does not load.
    """
    toolkit = toolkit_of(path)
    if toolkit and runtime and _numbers(toolkit)[:2] > _numbers(runtime)[:2]:
        raise RuntimeLibraryError(
            f"{path.name} was converted by rkllm-toolkit {toolkit}, and the runtime is {runtime}: "
            f"install the runtime {toolkit}, or convert the model with toolkit {runtime}"
        )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def driver(root: Path = Path("/")) -> list[str]:
    """The NPU's driver and load, and the memory that is free, where the machine tells."""
    lines = [_line(root / _DRIVER), _line(root / _LOAD)]
    if memory := re.search(r"MemAvailable:\s*(\d+) kB", _text(root / "proc/meminfo")):
        lines.append(f"{int(memory[1]) / 1e6:.1f} GB of memory free")
    if mask := os.environ.get("RKNN_CORE_MASK"):
        lines.append(f"RKNN_CORE_MASK {mask}")
    return [line for line in lines if line]


def _line(path: Path) -> str:
    return " ".join(_text(path).split())[:120]


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(1 << 14)
    except OSError:
        return ""
