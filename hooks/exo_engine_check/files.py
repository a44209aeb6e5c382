"""Reading a project's files: bounded, and every failure is a sentence."""

import errno
import io
import os
import tokenize
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path

MAX_BYTES = 2_000_000
MAX_FILES = 20_000


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


SKIPPED = words(
    """__pycache__ .eggs .git .hg .hypothesis .mypy_cache .nox .pytest_cache .ruff_cache .svn .tox
    .venv build dist env htmlcov node_modules venv"""
)
SKIPPED_INSIDE = words("__pycache__ node_modules")  # a package may have a part called env or build


class CannotRunError(Exception):
    """The check can't be made at all; the text says why."""


class UnreadableError(Exception):
    """A file can't be read; the text says why, without the file's name."""


def read_text(path: Traversable, limit: int = MAX_BYTES) -> str:
    """The text of a file. Raises UnreadableError."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UnreadableError(f"can't be read: {reason(error)}") from error
    except Exception as error:  # a damaged member of an archive: zlib, zipfile, RuntimeError
        raise UnreadableError(f"can't be read: {error}") from error
    if len(data) > limit:
        raise UnreadableError(f"is larger than {limit // 1_000_000} MB, too large to be a source")
    try:
        text = data.decode(_encoding(data) if path.name.endswith(".py") else "utf-8-sig")
    except UnicodeDecodeError as error:
        name = error.encoding.replace("utf-8", "UTF-8")
        raise UnreadableError(f"is not {name} text") from None
    if "\0" in text:
        raise UnreadableError("is a binary file")
    return text


def _encoding(data: bytes) -> str:
    """What a Python source says of itself. Raises UnreadableError."""
    try:
        return tokenize.detect_encoding(io.BytesIO(data).readline)[0]
    except SyntaxError as error:
        raise UnreadableError(f"is no Python: {error.msg}") from None


def reason(error: OSError) -> str:
    """Why the system refused, in its own words."""
    if error.errno == errno.ELOOP:
        return "a symbolic link that leads to itself"
    return (error.strerror or str(error)).lower()


def is_file(path: Traversable) -> bool:
    """Whether something is there that could be read; no permission counts as there."""
    try:
        return path.is_file()
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False


def is_folder(path: Traversable) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def names(folder: Traversable) -> list[Traversable]:
    """What a folder holds, sorted; nothing where it can't be listed."""
    try:
        return sorted(folder.iterdir(), key=lambda path: path.name)
    except (OSError, ValueError):
        return []


def python_files(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    """Every Python file below a package's folder, as (path below the project, file).

    Linked folders are followed, unless they lead round in a circle.
    """
    pending = [(prefix, folder, _with_parents(folder))]
    count = 0
    while pending and count < MAX_FILES:
        where, current, above = pending.pop()
        count += 1
        for path in names(current):
            inside = f"{where}/{path.name}" if where else path.name
            if path.name.endswith(".py"):
                if is_file(path) or _is_link(path):
                    count += 1
                    yield inside, path
            elif path.name.isidentifier() and path.name not in SKIPPED_INSIDE and is_folder(path):
                real = _real(path)
                if real not in above:
                    pending.append((inside, path, above | {real}))


def _is_link(path: Traversable) -> bool:
    return isinstance(path, Path) and path.is_symlink()


def _real(path: Traversable) -> str:
    return os.path.realpath(path) if isinstance(path, Path) else str(path)


def _with_parents(folder: Traversable) -> frozenset[str]:
    real = _real(folder)
    return frozenset([real, *map(str, Path(real).parents)])


def open_project(path: Path) -> Traversable:
    """The folder or the inside of a wheel. Raises CannotRunError."""
    import zipfile

    try:
        kind = "folder" if path.is_dir() else "file" if path.is_file() else ""
        if kind == "folder":
            os.listdir(path)
            return path
        if not kind:
            path.stat()
    except OSError as error:
        raise CannotRunError(f"{path}: {reason(error)}") from error
    if path.suffix != ".whl":
        raise CannotRunError(f"{path} is neither a folder nor a wheel (.whl)")
    try:
        return zipfile.Path(zipfile.ZipFile(path))
    except OSError as error:
        raise CannotRunError(f"{path}: {reason(error)}") from error
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CannotRunError(f"{path} is no wheel: {error}") from error
