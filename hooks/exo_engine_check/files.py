"""Reading a project's files: bounded, and every failure is a sentence."""

import contextlib
import errno
import gc
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

MAX_BYTES = 2_000_000  # of one file
MAX_SOURCE = 20_000_000  # of all files of a package
MAX_FILES = 5_000
MAX_MEMORY = 2**31  # bytes, while a project is read
MAX_WHEEL = 2_000_000_000


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


class CannotRunError(Exception):
    """The check can't be made at all; the text says why."""


class DeadlineError(BaseException):
    """The time is over. No Exception, or what catches an OSError would swallow it."""


class UnreadableError(Exception):
    """A file can't be read; the text says why, without the file's name."""


def read_bytes(path: Path) -> bytes:
    """What a file holds. Raises UnreadableError."""
    try:
        if not path.is_file() and path.exists():
            raise UnreadableError("can't be read: it is no plain file")  # a pipe is waited for
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise UnreadableError(f"can't be read: {why}") from error
    if len(data) > MAX_BYTES:
        raise UnreadableError(f"is larger than {MAX_BYTES // 1_000_000} MB, too large to be read")
    return data


def read_text(path: Path) -> str:
    """The text of a file. Raises UnreadableError."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableError("is not UTF-8 text") from None


def reason(error: OSError) -> str:
    """Why the system refused, in its own words."""
    if error.errno == errno.ELOOP:
        return "a symbolic link that leads to itself"
    return (error.strerror or str(error)).lower()


def refused_link(path: Path, root: Path, known: set[str]) -> str:
    """Why a link is not followed; a file that was read before, or that lies elsewhere."""
    real = os.path.realpath(path)
    if not real.startswith(os.path.realpath(root) + os.sep):
        return "is a link that leads out of the project"
    if real in known:
        return "is a link to a file that is read already"
    known.add(real)
    return ""


def is_file(path: Path) -> bool:
    """Whether something is there that could be read; no permission counts as there."""
    try:
        return path.is_file()
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def bounded_memory() -> Iterator[None]:
    """Read a project with so much more memory at most (Linux). Raises CannotRunError.

    Meanwhile nothing is collected: the collector would walk all syntax trees again and again, and
    none of them is in a cycle.
    """
    with contextlib.ExitStack() as stack:
        if gc.isenabled():
            gc.disable()
            stack.callback(gc.enable)
        if sys.platform == "linux":
            stack.enter_context(_limited(MAX_MEMORY))
        yield


@contextlib.contextmanager
def _limited(more: int) -> Iterator[None]:
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + more
    if before[0] in (-1, resource.RLIM_INFINITY) or before[0] > most:
        resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    except MemoryError:
        raise CannotRunError(
            f"the project can't be read with {more / 2**30:g} GiB of memory"
        ) from None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def python_files(folder: Path) -> Iterator[Path]:
    """Every Python file below a package's folder. Links to folders are not followed."""
    count = 0
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name.isidentifier() and name != "__pycache__"]
        yield from (Path(where, name) for name in sorted(files) if name.endswith(".py"))
        count += len(folders) + len(files)
        if count > MAX_FILES:
            raise CannotRunError(f"{folder.name} has more than {MAX_FILES} files and folders")


def open_project(path: Path, folder: Path) -> Path:
    """The project's folder, or a wheel's inside, unpacked into `folder`. Raises CannotRunError."""
    try:
        if path.is_dir():
            os.listdir(path)
            return path
        path.stat()
        if path.suffix != ".whl" or not path.is_file():
            raise CannotRunError(f"{path} is neither a folder nor a wheel (.whl)")
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_WHEEL:
                raise CannotRunError(f"{path} is too large to be unpacked")
            archive.extractall(folder)  # no member leads out of it, or is larger than it says
    except CannotRunError:
        raise
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise CannotRunError(f"{path}: {why}") from error
    except Exception as error:  # zlib, zipfile and RuntimeError: a damaged or encrypted member
        raise CannotRunError(f"{path} is no wheel: {error}") from error
    return folder
