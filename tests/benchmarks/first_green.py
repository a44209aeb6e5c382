"""Time to first green: render, install and a plugin's own tests, as whole processes.

Run by hand, in an environment in which this repository and its test extra are installed:

    python tests/benchmarks/first_green.py [--runs N] [--cookie path/to/scientific-python/cookie]

Cold begins with an empty cache of uv, so it downloads everything; warm is the median of the runs
after it. `--cookie` names a clone of that template: the same is done with it, for the ratio. Its
renders run code of its own, so it gets `--trust`, and wants copier-templates-extensions installed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
COLD_SECONDS, WARM_SECONDS = 12.0, 9.0
TESTS_SECONDS = 5.0  # of the warm ones
COOKIE_ANSWERS = {
    "project_name": "exo-cookie",
    "org": "org",
    "url": "https://github.com/org/exo-cookie",
    "full_name": "Your Name",
    "email": "you@example.com",
    "project_short_description": "A package",
    "license": "BSD",
    "backend": "hatch",
    "docs": "sphinx",
    "vcs": "false",
}


@dataclass
class Steps:
    """Seconds of each step of one way to green."""

    render: float
    install: float
    tests: float
    whole: float = field(init=False)

    def __post_init__(self) -> None:
        self.whole = self.render + self.install + self.tests


def seconds(*command: str | Path, cwd: Path, cache: Path) -> float:
    """What a process takes that has to succeed."""
    foreign = ("PYTHON", "VIRTUAL_ENV", "UV_CACHE_DIR", "RKLLM_", "EXO_", "PYTEST_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    begun = time.perf_counter()
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env | {"UV_CACHE_DIR": str(cache), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    taken = time.perf_counter() - begun
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return taken


@dataclass(frozen=True)
class Way:
    """What to render, and what of it to install."""

    template: Path
    answers: dict[str, str]
    install: tuple[str, ...]
    trust: bool = False


def first_green(way: Way, cache: Path) -> Steps:
    """One user's way: `copier copy`, a fresh environment with the project in it, `pytest`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / way.answers["project_name"]
        data = [part for key, value in way.answers.items() for part in ("--data", f"{key}={value}")]
        copy = ["copier", "copy", "--defaults", "--quiet", "--vcs-ref", "HEAD", *data]
        copy += ["--trust"] * way.trust
        render = seconds(*copy, way.template, folder, cwd=Path(name), cache=cache)
        venv = seconds(
            "uv", "venv", "--quiet", "--python", sys.executable, ".venv", cwd=folder, cache=cache
        )
        python = folder / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        install = seconds(
            *["uv", "pip", "install", "--quiet", "--python", python, *way.install],
            cwd=folder,
            cache=cache,
        )
        tests = seconds(python, "-m", "pytest", "-q", cwd=folder, cache=cache)
        return Steps(render, venv + install, tests)


def measure(way: Way, runs: int) -> tuple[Steps, list[Steps]]:
    """The first time with an empty cache, and then so many times with a full one."""
    with tempfile.TemporaryDirectory() as name:
        cold = first_green(way, Path(name))
        return cold, [first_green(way, Path(name)) for _ in range(runs)]


def show(name: str, kind: str, steps: Steps, limit: float) -> None:
    """One line of the result."""
    slow = steps.whole > limit or (kind == "warm" and steps.tests > TESTS_SECONDS)
    verdict = f"at most {limit:.0f} s, tests {TESTS_SECONDS:.0f} s: {'TOO SLOW' if slow else 'ok'}"
    parts = f"{steps.render:5.2f} render {steps.install:6.2f} install {steps.tests:6.2f} tests"
    verdict_before = "" if name == "cookie" else verdict
    print(f"{name:8} {kind}  {steps.whole:6.2f} s  = {parts}   {verdict_before}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3, help="warm runs of each (3)")
    parser.add_argument("--cookie", type=Path, help="a git repository of scientific-python/cookie")
    options = parser.parse_args()
    copier_yml = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    ways = {
        variant: Way(
            ROOT, {"project_name": f"exo-{variant}", "variant": variant}, ("-e", ".[test]")
        )
        for variant in copier_yml["variant"]["choices"].values()
    }
    if options.cookie:
        ways["cookie"] = Way(
            options.cookie.resolve(), COOKIE_ANSWERS, ("-e", ".", "--group", "test"), trust=True
        )
    wholes = {}
    for name, way in ways.items():
        cold, warm = measure(way, options.runs)
        middle = sorted(warm, key=lambda steps: steps.whole)[len(warm) // 2]
        show(name, "cold", cold, COLD_SECONDS)
        show(name, "warm", middle, WARM_SECONDS)
        wholes[name] = cold.whole, middle.whole
    if options.cookie:
        cookie = wholes.pop("cookie")
        for name, own in wholes.items():
            print(
                f"{name:8} of cookie: {own[0] / cookie[0]:.2f} cold, {own[1] / cookie[1]:.2f} warm"
            )


if __name__ == "__main__":
    main()
