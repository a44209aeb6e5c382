"""Jobs in a process of their own, `python -m <this module> <package> JOB ...`.

They import the backend, and with it the device's SDK, which exo's own process is not to have. A
fault is one sentence on stderr and exit status 1.
"""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...logs import one_line
from .compatibility import HostError

if TYPE_CHECKING:
    from ...plugin import Plugin


def command(plugin: "Plugin", job: str, *arguments: object) -> list[str]:
    """The command line of a job."""
    words = [plugin.package, job, *map(str, arguments)]
    return [sys.executable, "-P", "-m", __name__, *words]  # -P: no module of this folder wins


def run(plugin: "Plugin", job: str, *arguments: object) -> list[str]:
    """The lines that a job writes. Raises HostError with its sentence."""
    line = command(plugin, job, *arguments)
    done = subprocess.run(line, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise HostError(words[-1])
    return done.stdout.splitlines()


def main(package: str, job: str, *arguments: str) -> None:
    """Do a job."""
    plugin: Any = import_module(f"{package}.plugin").PLUGIN
    if job == "stage":
        from .cards import stage

        for line in stage(plugin, Path(arguments[0])):
            print(line)
    else:
        from .downloads import fetch

        fetch(plugin, *arguments)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        sys.exit(one_line(error))
