"""Processes of their own, for what strangers wrote: a model's chat template, and its tokenizer."""

import os
import sys
from pathlib import Path

# Where a Python finds its libraries; Windows starts none without the first.
_PATHS = ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def command(script: Path, *arguments: object) -> list[str]:
    """The command line of a script that stands beside this module."""
    # -P: the folder of the script is not where modules are; ours have the names of others.
    return [sys.executable, "-P", str(script), *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """Paths alone: no key, token or proxy of the node's can be read there."""
    paths = {name: os.environ[name] for name in _PATHS if name in os.environ}
    return paths | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | more
