"""Three machines that a detector may meet: nothing is there, all is broken, all lies."""

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

from .audit import PROGRAMS, auditing, replaced

_FILES = {"open", "os.listdir", "os.scandir"}
_PYTHONS = {sys.prefix, sys.base_prefix, os.path.dirname(os.__file__), *filter(None, sys.path)}
_OURS = tuple(map(os.path.realpath, _PYTHONS))


@contextlib.contextmanager
def nothing(root: str, known: set[str]) -> Iterator[None]:
    """No file of the system's, no program, no SDK."""
    missing = FileNotFoundError(2, "refused by the check")
    with _refusing(root, missing, programs=True), _sdks(known, None):
        yield


@contextlib.contextmanager
def broken(root: str, known: set[str]) -> Iterator[None]:
    """Files are forbidden, programs hang, every SDK raises."""

    def fail() -> Any:
        raise RuntimeError("the SDK has found no driver")

    forbidden = PermissionError(13, "refused by the check")
    with _refusing(root, forbidden, programs=False), _sdks(known, fail), _hanging_programs():
        yield


@contextlib.contextmanager
def lying(root: str, known: set[str]) -> Iterator[None]:
    """Files hold what nobody expects, and an SDK gives no text."""
    with _garbage(root), _sdks(known, lambda: 1):
        yield


def _is_system(path: Any, root: str) -> bool:
    """Whether a file is the machine's, and no code of Python's or the plugin's."""
    try:
        real = os.path.realpath(os.fsdecode(path))
    except (TypeError, ValueError):
        return False
    if real == os.devnull:
        return False
    return not real.startswith((*_OURS, root)) and not real.endswith((".py", ".pyc", ".so"))


@contextlib.contextmanager
def _refusing(root: str, error: OSError, programs: bool) -> Iterator[None]:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        library = event == "ctypes.dlopen" and arguments[0]
        program = programs and event in PROGRAMS
        if program or library or (event in _FILES and _is_system(arguments[0], root)):
            raise type(error)(*error.args)

    with auditing(hook):
        yield


@contextlib.contextmanager
def _garbage(root: str) -> Iterator[None]:
    plain = io.open

    def opened(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if not _is_system(file, root) or set(mode) & set("wax+"):
            return plain(file, mode, *rest, **named)
        data = io.BytesIO(b"\xff\xfe\x00 99999 garbage \x80\n" * 3)
        if "b" in mode:
            return data
        return io.TextIOWrapper(data, named.get("encoding") or "utf-8", named.get("errors"))

    with replaced(io, "open", opened), replaced(builtins, "open", opened):
        yield


@contextlib.contextmanager
def _hanging_programs() -> Iterator[None]:
    plain = subprocess.Popen.__init__

    def __init__(self: Any, args: Any, *rest: Any, **named: Any) -> None:
        named |= {"shell": False, "executable": None}
        plain(self, [sys.executable, "-c", "import time; time.sleep(600)"], *rest, **named)

    with replaced(subprocess.Popen, "__init__", __init__):
        yield


class _Sdk(ModuleType):
    """A module, and all that it has: called, it raises or lies."""

    def __init__(self, name: str, answer: Callable[[], Any]) -> None:
        super().__init__(name)
        self.__dict__["answer"] = answer

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self.__dict__["answer"]()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Sdk(name, self.__dict__["answer"])


class _Sdks(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives a module of its own for every library that is not known; without an answer, none."""

    def __init__(self, known: set[str], answer: Callable[[], Any] | None) -> None:
        self.known, self.answer = known, answer

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] in self.known:
            return None
        if self.answer is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> ModuleType:
        assert self.answer is not None
        return _Sdk(spec.name, self.answer)

    def exec_module(self, module: ModuleType) -> None:
        return


@contextlib.contextmanager
def _sdks(known: set[str], answer: Callable[[], Any] | None) -> Iterator[None]:
    """Replace every library that is neither Python's nor the plugin's."""
    finder, before = _Sdks(known, answer), dict(sys.modules)
    for name in before:
        if name.partition(".")[0] not in known:
            del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - set(before):
            del sys.modules[name]
        sys.modules.update(before)
