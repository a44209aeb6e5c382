"""Reading a project's files: bounded, and every failure is a sentence."""

import errno
import io
import os
import stat
import tokenize
import zipfile
from collections.abc import Iterator
from pathlib import Path

MAX_BYTES = 2_000_000
MAX_FILES = 5_000
MAX_WHEEL = 2_000_000_000


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


def read_text(path: Path, limit: int = MAX_BYTES) -> str:
    """The text of a file. Raises UnreadableError."""
    try:
        data = _read(path, limit + 1)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise UnreadableError(f"can't be read: {why}") from error
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


def _read(path: Path, limit: int) -> bytes:
    """A plain file's bytes: opening a pipe, or a link to one, must not wait for its writer."""
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(number, "rb") as file:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise UnreadableError("can't be read: it is no plain file")
        return file.read(limit)


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


def is_file(path: Path) -> bool:
    """Whether something is there that could be read; no permission counts as there."""
    try:
        return path.is_file()
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def names(folder: Path) -> list[Path]:
    """What a folder holds, sorted; nothing where it can't be listed."""
    try:
        return sorted(folder.iterdir(), key=lambda path: path.name)
    except (OSError, ValueError):
        return []


def python_files(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    """Every Python file below a package's folder, as (path below the project, file).

    Each real folder is read once, so that links can't lead round in a circle, or multiply.
    """
    pending = [(prefix, folder)]
    seen = {os.path.realpath(folder)}
    count = 0
    while pending:
        where, current = pending.pop()
        for path in names(current):
            inside = f"{where}/{path.name}" if where else path.name
            if path.name.endswith(".py"):
                if is_file(path) or path.is_symlink():
                    yield inside, path
            elif path.name.isidentifier() and path.name not in SKIPPED_INSIDE and is_folder(path):
                real = os.path.realpath(path)
                if real not in seen:
                    seen.add(real)
                    pending.append((inside, path))
            else:
                continue
            count += 1
            if count > MAX_FILES:
                raise CannotRunError(f"{folder.name} has more than {MAX_FILES} files and folders")


def open_project(path: Path, folder: Path) -> Path:
    """The project's folder, or a wheel's inside, unpacked into `folder`. Raises CannotRunError."""
    try:
        if path.is_dir():
            os.listdir(path)
            return path
        if not path.is_file():
            path.stat()
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise CannotRunError(f"{path}: {why}") from error
    if path.suffix != ".whl" or not path.is_file():
        raise CannotRunError(f"{path} is neither a folder nor a wheel (.whl)")
    try:
        _unpack(path, folder)
    except OSError as error:
        raise CannotRunError(f"{path}: {reason(error)}") from error
    except Exception as error:  # zlib, zipfile and RuntimeError: a damaged or encrypted member
        raise CannotRunError(f"{path} is no wheel: {error}") from error
    return folder


def _unpack(wheel: Path, folder: Path) -> None:
    """Every member under its own plain name; what a header says of sizes is not believed."""
    left = MAX_WHEEL
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist()[: 10 * MAX_FILES]:
            parts = member.filename.rstrip("/").split("/")
            if any(part in {"", ".", ".."} or "\\" in part or ":" in part for part in parts):
                raise ValueError(f"it holds a file called {member.filename!r}")
            target = folder.joinpath(*parts)
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as copy:
                while data := source.read(1 << 20):
                    left -= len(data)
                    if left < 0:
                        raise ValueError("it is too large to be unpacked")
                    copy.write(data)
