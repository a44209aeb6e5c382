"""Files that are mapped into memory: reading what somebody cuts off ends the process (SIGBUS)."""

import os
from collections.abc import Iterable
from pathlib import Path


class FileChangedError(RuntimeError):
    """A mapped file is no longer what was loaded."""


class WatchedFiles:
    """Files as they were at a load: paths, or what os.stat() said of them.

    A file that was removed, or another one in its place, does no harm: the mapping keeps the old.
    """

    def __init__(self, files: Iterable[Path] | dict[Path, os.stat_result] = ()) -> None:
        known = files if isinstance(files, dict) else {path: path.stat() for path in files}
        self._known = tuple(known.items())

    def check(self) -> None:
        """Raise FileChangedError where a file was written to since."""
        for path, then in self._known:
            try:
                now = path.stat()
            except OSError:
                continue
            same = (now.st_ino, now.st_dev) == (then.st_ino, then.st_dev)
            if same and (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
                raise FileChangedError(
                    f"{path} was written to after it was loaded. Start anew; to replace a model's "
                    "files, write new ones beside them and rename those"
                )
