"""Many requests on two instances of a real exo 0.3, a third of whose clients go away.

Answers are right, both instances have some, and nothing of the plugin's grows. exo's own process
does: what it keeps of each request is in docs/exo.md.

SOAK times as many requests.
"""

import os
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import render_into
from nodes_0_3 import Node, install, namespace, node, why_not

pytestmark = [
    pytest.mark.skipif(bool(why := why_not()), reason=str(why)),
    pytest.mark.xdist_group("real-exo-0-3"),
]

SOAK = int(os.environ.get("SOAK", "1"))
MODEL = "exo_numpy/random-model"
PROMPTS = ("What is an NPU?", "Köln, 日本語 and an emoji: 🙂", "The quick brown fox jumps. " * 20)
REQUESTS = 60 * SOAK
CLIENTS = 4  # at once
TOKENS = 12
LOOKS = 6  # at memory on the way
GROWTH = 10.0  # MB that the runner may grow by after the first look
SPARE = 8  # files and sockets that may be open for a moment longer
CACHE_BYTES = str(1 << 20)  # of ended answers: reached on the way, so that memory can be flat
WRITE = """
import sys
from pathlib import Path
from exo_numpy.kit.llama.random_checkpoint import DEFAULT, write_checkpoint
write_checkpoint(Path(sys.argv[1]), DEFAULT)
"""


@pytest.fixture
def placed(template: Path, tmp_path: Path) -> Iterator[Node]:
    """A node on which two instances of a random model are ready."""
    plugin = render_into(template, tmp_path / "exo-numpy", variant="numpy")
    python = install(tmp_path / "venv", plugin)
    folder = tmp_path / "random-model"
    subprocess.run([python, "-c", WRITE, folder], check=True)
    command = (python, "-m", "exo_numpy", "exo", "--place", "none")
    with namespace() as space:
        settings = {"EXO_NUMPY_FOLDERS": str(folder), "EXO_NUMPY_CACHE_BYTES": CACHE_BYTES}
        with node(space, tmp_path / "node", *command, **settings) as started:
            started.place(MODEL)
            started.place(MODEL)
            yield started


def memory(process: int) -> float:
    """Resident, in MB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def opened(process: int) -> int:
    """How many files and sockets are."""
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def shares(log: str) -> list[int]:
    """How many requests each instance has had."""
    tasks = re.findall(r"Starting task TextGeneration\(.*?instance_id='([^']+)'", log)
    return sorted(Counter(tasks).values())


def test_many_requests_are_answered_and_nothing_grows(placed: Node) -> None:
    answers = {prompt: placed.text(MODEL, prompt, max_tokens=TOKENS) for prompt in PROMPTS}
    runners = sorted(placed.runners())
    assert len(runners) == 2
    processes = {"node": placed.process.pid, "first": runners[0], "second": runners[1]}
    before = {name: opened(process) for name, process in processes.items()}
    looks: list[dict[str, float]] = []
    done, lock = set[int](), threading.Lock()

    def ask(n: int) -> str | None:
        """What is wrong with one request, if anything; every third client leaves in the middle."""
        prompt = PROMPTS[n // 2 % len(PROMPTS)]
        if n % 3 == 2:
            answer = placed.stream(MODEL, prompt, most=3, max_tokens=200)
            wrong = answer.error
        else:
            if n % 2:
                text = placed.text(MODEL, prompt, max_tokens=TOKENS)
            else:
                text = placed.stream(MODEL, prompt, max_tokens=TOKENS).text
            wrong = None if text == answers[prompt] else f"{text!r} to {prompt!r}"
        with lock:
            done.add(n)
            if len(done) % (REQUESTS // LOOKS) == 0:
                looks.append({name: memory(process) for name, process in processes.items()})
        return wrong

    with ThreadPoolExecutor(CLIENTS) as pool:
        wrong = [each for each in pool.map(ask, range(REQUESTS)) if each]
    had = shares(placed.log)
    print(f"{REQUESTS} requests, {len(wrong)} wrong, each instance {had}, MB: {looks}")
    assert not wrong, wrong[:3]
    assert len(had) == 2
    assert had[0] >= REQUESTS // 5, had
    for name in ("first", "second"):
        assert looks[-1][name] - looks[0][name] <= GROWTH, (name, looks)
    assert sorted(placed.runners()) == runners
    placed.wait_for("rest", lambda: set(placed.statuses().values()) == {"RunnerReady"} or None, 10)
    after = {name: opened(process) for name, process in processes.items()}
    print(f"files and sockets before {before}, after {after}")
    assert all(after[name] <= before[name] + SPARE for name in processes), (before, after)
