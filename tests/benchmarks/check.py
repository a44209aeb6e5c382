"""What `exo-engine check` takes: whole processes, median of several, with the limits of the issue.

CPU is the least of user and system time, of all that a process starts: on a busy machine, compare
that.

Run by hand, in an environment in which this repository and its test extra are installed:

    python tests/benchmarks/check.py [--python PYTHON_WITH_EXO]

`repo-review`'s own time on the same plugin, all checks of sp-repo-review, is beside it.
"""

import argparse
import compileall
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import copier

ROOT = Path(__file__).resolve().parents[2]
COMMAND = Path(sys.executable).with_name("exo-engine")
RUNS = 7


def seconds(*arguments: str | Path, command: Path = COMMAND) -> tuple[float, float]:
    """The median of whole processes, each of which has to find nothing, and the least CPU time."""
    taken, used = [], []
    for _ in range(RUNS):
        begun, before = time.perf_counter(), cpu()
        done = subprocess.run(
            [command, *arguments], capture_output=True, encoding="utf-8", timeout=60
        )
        taken.append(time.perf_counter() - begun)
        used.append(cpu() - before)
        assert done.returncode == 0, done.stdout + done.stderr
    return statistics.median(taken), min(used)


def cpu() -> float:
    """Seconds of the processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def render(folder: Path, variant: str) -> Path:
    """A plugin of the committed template."""
    plugin = folder / f"exo-{variant}"
    copier.run_copy(
        str(ROOT), plugin, data={"variant": variant}, defaults=True, quiet=True, vcs_ref="HEAD"
    )
    return plugin


def fill(plugin: Path, count: int) -> None:
    """Give a plugin so many files: a third in its package, the rest where nobody should look.

    Each is 1.7 KB, a module of a plugin as it comes: the figure goes with the size.
    """
    [source] = plugin.glob("exo_*/kit/settings.py")
    places = [source.parents[1] / "more", plugin / "docs", plugin / ".venv" / "lib" / "x"]
    for number in range(count):
        place = places[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"m{number}.py").write_bytes(source.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", help="one that has exo, for a row more")
    python = parser.parse_args().python
    # As after pip: the first run of an environment that uv made compiles everything.
    compileall.compile_dir(sysconfig.get_path("purelib"), quiet=2)
    compileall.compile_dir(ROOT / "hooks", quiet=2)
    with tempfile.TemporaryDirectory() as name:
        plugin = render(Path(name), "numpy")
        review = COMMAND.with_name("repo-review")
        rows = [
            ("static", seconds("check", "--static", plugin), 0.5),
            ("default, on the stand-in", seconds("check", plugin), 4.0),
            ("repo-review of the same", seconds(plugin, command=review), float("inf")),
        ]
        if python:
            rows.append(("on exo itself", seconds("check", plugin, "--python", python), 8.0))
        fill(plugin, 2000)
        rows.append(("static, of 2,000 files", seconds("check", "--static", plugin), 3.0))
    for what, (taken, used), limit in rows:
        verdict = "ok" if taken <= limit else "TOO SLOW"
        print(f"{what:40} {taken:6.2f} s   at most {limit:.1f} s   {verdict}   CPU {used:.2f} s")


if __name__ == "__main__":
    main()
