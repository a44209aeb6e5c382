"""The plugin's command, which is also `python -m` of this package."""

import sys

from .kit.command.cli import main
from .plugin import PLUGIN


def command() -> int:
    """What the console script runs."""
    return main(PLUGIN)


if __name__ == "__main__":  # a process that exo 0.3 spawns imports this module again
    sys.exit(command())
