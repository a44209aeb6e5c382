"""What a real exo 0.3 leaves of the NumPy variant's speed: ratios of one run, in rounds.

Run by hand, on a machine that does nothing else, in an environment with this repository's test
extra, EXO_0_3_PYTHON set as for tests/real/nodes_0_3.py; MODEL is SmolLM2-135M-Instruct's folder:

    python tests/benchmarks/exo_0_3.py MODEL [--rounds 5] [--threads 1]

alone        a streamed answer's tokens a second over `bench`'s decode, which has no exo about it;
             it is the product of two: `steps`, what the model's steps keep of their speed beside
             exo's process, and `in steps`, the share of the answer's time that is spent in them
4 at once    four answers' tokens a second over those of `bench --at-once 4`, which begin together;
             exo admits one in 0.1 s, and `begun` is the wait until all four have a first token
fifth        the wait for a fifth user's first token beside four; of the model, and of a tiny one
a core       the share of one that exo's process takes, and the model's: at rest, at work
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "real"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "template"))

from conftest import copy_template, render_into
from nodes_0_3 import Answer, Node, install, namespace, node, why_not

TRIES = 8
TOKENS = 100  # of an answer
REST_SECONDS = 5.0
METRICS_PORT = 9464
FAST = "random-model"
TOPICS = ("rivers", "cities", "oceans", "forests", "bread")
WRITE = """
import sys
from pathlib import Path
from exo_numpy.kit.llama.random_checkpoint import DEFAULT, write_checkpoint
write_checkpoint(Path(sys.argv[1]), DEFAULT)
"""


@dataclass(frozen=True)
class Bench:
    """The plugin's own `bench`, without exo."""

    python: Path
    model: Path
    settings: dict[str, str]

    def run(self, prompt: str) -> tuple[float, float]:
        """Tokens a second of one answer's decode, and of four answers at once."""
        with tempfile.TemporaryDirectory() as folder:
            figures = Path(folder) / "figures.json"
            command = [self.python, "-m", "exo_numpy", "bench", "--model", self.model]
            command += ["--prompt", prompt, "--max-tokens", str(TOKENS), "--runs", "1"]
            command += ["--at-once", "4", "--json", figures]
            env = os.environ | self.settings
            subprocess.run([str(c) for c in command], env=env, check=True, capture_output=True)
            figures_read = json.loads(figures.read_text(encoding="utf-8"))
        return (
            figures_read["decode_tokens_per_second"]["median"],
            figures_read["at_once"]["tokens_per_second"],
        )


def alone(exo: Node, model: str, prompt: str) -> tuple[float, float]:
    """Tokens a second of one streamed answer: from its first one to its end, and of its steps."""
    before = decode_seconds(exo)
    answer = exo.stream(model, prompt, max_tokens=TOKENS)
    assert answer.usage is not None, answer.error
    assert answer.usage["completion_tokens"] == TOKENS, "another prompt: this answer ends early"
    in_steps = decode_seconds(exo) - before
    return (TOKENS - 1) / (answer.times[-1] - answer.times[0]), (TOKENS - 1) / in_steps


def decode_seconds(exo: Node) -> float:
    """What all decode steps have taken, by the plugin's own metrics."""

    def read() -> str:
        with urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics") as reply:
            return str(reply.read(), "utf-8")

    name = 'exo_numpy_step_seconds_sum{phase="decode"} '
    return float(exo.space.call(read).partition(name)[2].split()[0])


def at_once(exo: Node, model: str, prompts: list[str]) -> tuple[float, float]:
    """Tokens a second of streamed answers side by side, from their questions to the last end, and
    the seconds until each of them has begun."""
    with ThreadPoolExecutor(len(prompts)) as pool:
        begun = time.monotonic()
        runs = [pool.submit(exo.stream, model, p, max_tokens=TOKENS) for p in prompts]
        answers = [run.result() for run in runs]
    tokens = sum(int(answer.usage["completion_tokens"]) for answer in answers if answer.usage)
    ends, firsts = ([answer.times[n] for answer in answers] for n in (-1, 0))
    return tokens / (max(ends) - begun), max(firsts) - begun


def fifth(exo: Node, model: str, prompts: list[str], most: int) -> float:
    """The seconds to a user's first token beside four, all of whom read already."""
    for attempt in range(TRIES):  # random weights end some answers at once
        again = [f"{prompt} {'Go on. ' * attempt}" for prompt in prompts]
        others = [Answer() for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            runs = [
                pool.submit(exo.stream, model, prompt, most, other, max_tokens=4000)
                for prompt, other in zip(again[:4], others, strict=True)
            ]
            begun_all = partial(lambda four: all(one.times for one in four) or None, others)
            exo.wait_for("four answers", begun_all)
            begun = time.monotonic()
            answer = exo.stream(model, again[4], most=1, max_tokens=TOKENS)
            if answer.times and not any(run.done() for run in runs):
                return answer.times[0] - begun
    sys.exit(f"one of four answers ended early, {TRIES} times")


def cpu(process: int) -> float:
    """The seconds of a core that a process has had."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Shares:
    """The shares of a core that exo's process takes, and the model's."""

    def __init__(self, *processes: int) -> None:
        self._processes = processes
        self.seen: dict[str, list[list[float]]] = {}

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Measure, while this does something."""
        begun, before = time.monotonic(), [cpu(each) for each in self._processes]
        yield
        took = time.monotonic() - begun
        shares = [(cpu(p) - b) / took for p, b in zip(self._processes, before, strict=True)]
        self.seen.setdefault(what, []).append(shares)


def show(name: str, figures: list[float], unit: str = "") -> None:
    """The median, and all."""
    every = " ".join(f"{figure:.2f}" for figure in figures)
    print(f"{name:<28} {statistics.median(figures):6.2f}{unit}   ({every})", flush=True)


def measure(exo: Node, bench: Bench, model: str, rounds: int) -> None:
    """All figures, in rounds that take turns."""
    [runner] = exo.runners()
    exo.place(f"exo_numpy/{FAST}")
    shares = Shares(exo.process.pid, runner)
    names = ("alone", "steps", "bench", "4 at once", "bench 4")
    rates: dict[str, list[float]] = {name: [] for name in names}
    names = ("4 at once: begun", "fifth beside four", "fifth beside four fast ones")
    waits: dict[str, list[float]] = {name: [] for name in names}
    for n in range(rounds):
        prompts = [f"Write a long story number {n} about {topic}." for topic in TOPICS]
        with shares.of("at rest"):
            time.sleep(REST_SECONDS)
        alone(exo, model, "Write a long story about Paris.")  # bench, too, begins with one
        with shares.of("alone"):
            whole, steps = alone(exo, model, prompts[0])
        one, four = bench.run(prompts[0])
        with shares.of("4 at once"):
            together, begun = at_once(exo, model, prompts[:4])
        rates["4 at once"].append(together)
        waits["4 at once: begun"].append(begun)
        rates["alone"].append(whole)
        rates["steps"].append(steps)
        rates["bench"].append(one)
        rates["bench 4"].append(four)
        waits["fifth beside four"].append(fifth(exo, model, prompts, 60))
        fast = fifth(exo, f"exo_numpy/{FAST}", prompts, 100)
        waits["fifth beside four fast ones"].append(fast)
    for name, figures in rates.items():
        show(name, figures, " tokens/s")
    for name, ours, base in (
        ("alone", "alone", "bench"),
        ("alone: steps", "steps", "bench"),
        ("alone: in steps", "alone", "steps"),
        ("4 at once", "4 at once", "bench 4"),
    ):
        pairs = zip(rates[ours], rates[base], strict=True)
        show(name, [with_exo / without for with_exo, without in pairs])
    for name, figures in waits.items():
        show(name, figures, " s")
    for name, seen in shares.seen.items():
        show(f"a core, {name}: exo", [each[0] for each in seen])
        show(f"a core, {name}: the model", [each[1] for each in seen])


def main() -> None:
    """One node, and its ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a folder with SmolLM2-135M-Instruct")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of the model (default: the plugin's own)")
    options = parser.parse_args()
    if why := why_not():
        sys.exit(why)
    print(f"load of the machine before: {os.getloadavg()[0]:.2f}", flush=True)
    settings = {"EXO_NUMPY_THREADS": str(options.threads)} if options.threads else {}
    with tempfile.TemporaryDirectory(prefix="exo-0-3-") as name, namespace() as space:
        folder = Path(name)
        plugin = render_into(
            copy_template(folder / "template"), folder / "exo-numpy", variant="numpy"
        )
        python = install(folder / "venv", plugin)
        subprocess.run([python, "-c", WRITE, folder / FAST], check=True)
        folders = {"EXO_NUMPY_FOLDERS": f"{options.model.resolve()}:{folder / FAST}"}
        folders["EXO_NUMPY_METRICS_PORT"] = str(METRICS_PORT)
        command = (python, "-m", "exo_numpy", "exo", "--place", "none")
        with node(space, folder / "node", *command, **folders, **settings) as exo:
            model = "exo_numpy/smollm2-135m-instruct"
            exo.place(model)
            measure(exo, Bench(python, options.model, settings), model, options.rounds)


if __name__ == "__main__":
    main()
