"""What a machine may do to a detector: files, programs and SDKs that are missing, raise or lie."""

import builtins
import contextlib
import importlib.abc
import importlib.machinery
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from .guards import Hook, auditing

_FILES = {"open", "os.listdir", "os.scandir"}
_PROGRAMS = {"subprocess.Popen", "os.posix_spawn", "os.system"}
_OURS = tuple(
    os.path.realpath(path)
    for path in {sys.prefix, sys.base_prefix, os.path.dirname(os.__file__), *sys.path}
    if path
)


def _is_system(path: Any, roots: tuple[str, ...]) -> bool:
    """Whether a file is the machine's, and no code of Python's or the plugin's."""
    try:
        real = os.path.realpath(os.fsdecode(path))
    except (TypeError, ValueError):
        return False
    return not real.startswith((*_OURS, *roots)) and not real.endswith((".py", ".pyc", ".so"))


def refusing(roots: tuple[str, ...], make: Callable[[], OSError], seen: set[str]) -> Hook:
    """Files, folders and programs of the system can't be had."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _PROGRAMS:
            seen.add("programs")
            raise make()
        if event == "ctypes.dlopen" and arguments[0]:
            raise make()
        if event in _FILES and _is_system(arguments[0], roots):
            seen.add("files")
            raise make()

    return hook


@contextlib.contextmanager
def garbage(roots: tuple[str, ...]) -> Iterator[None]:
    """Files of the system hold what nobody expects."""
    plain = io.open

    def opened(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if not _is_system(file, roots) or set(mode) & set("wax+"):
            return plain(file, mode, *rest, **named)
        data = io.BytesIO(b"\xff\xfe\x00 99999 garbage \x80\n" * 3)
        if "b" in mode:
            return data
        named.pop("buffering", None)
        return io.TextIOWrapper(data, named.get("encoding") or "utf-8", named.get("errors"))

    io.open = builtins.open = opened
    try:
        yield
    finally:
        io.open = builtins.open = plain


@contextlib.contextmanager
def hanging_programs() -> Iterator[None]:
    """Every program is there, and none of them ends."""
    plain = subprocess.Popen.__init__

    def __init__(self: Any, args: Any, *rest: Any, **named: Any) -> None:
        named |= {"shell": False, "executable": None}
        plain(self, [sys.executable, "-c", "import time; time.sleep(600)"], *rest, **named)

    setattr(subprocess.Popen, "__init__", __init__)  # noqa: B010 - mypy knows its type
    try:
        yield
    finally:
        setattr(subprocess.Popen, "__init__", plain)  # noqa: B010


class _Sdk(ModuleType):
    """A module in which everything can be called."""

    answer: Callable[[], Any]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Part(self.answer)


class _Part:
    """Whatever an SDK has: called, it raises or lies."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self._answer = answer

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self._answer()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Part(self._answer)


class Sdks(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives a module of its own for every library that is neither Python's nor the plugin's."""

    def __init__(self, known: set[str], answer: Callable[[], Any] | None) -> None:
        self.known, self.answer, self.seen = known, answer, set[str]()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] in self.known:
            return None
        self.seen.add(name)
        if self.answer is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> ModuleType:
        module = _Sdk(spec.name)
        assert self.answer is not None
        module.answer = self.answer
        return module

    def exec_module(self, module: ModuleType) -> None:
        return

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Hide what is loaded, too; all of it is back afterwards."""
        kept = dict(sys.modules)
        for name in kept:
            if name.partition(".")[0] not in self.known:
                del sys.modules[name]
        sys.meta_path.insert(0, self)
        try:
            yield
        finally:
            sys.meta_path.remove(self)
            for name in set(sys.modules) - set(kept):
                del sys.modules[name]
            sys.modules.update(kept)


__all__ = ["Sdks", "auditing", "garbage", "hanging_programs", "refusing"]
