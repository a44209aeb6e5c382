"""Many users of one node of a real exo, the NumPy variant with SmolLM2-135M: ratios of one run.

Run by hand, on a machine that does nothing else, in an environment with this repository's test
extra, EXO_PYTHON set as for tests/real/host_0_0.py; MODEL is SmolLM2-135M-Instruct's folder:

    python tests/benchmarks/many_users.py MODEL [--rounds 3] [--nodes 1]

N at once     tokens a second of N answers side by side over those of one alone
turn 2, 3     the wait for a chat's later first tokens over that for its first; 480 tokens each
pause         another answer's longest pause while a prompt of 1,500 tokens comes, over its time
prompt        that prompt's time beside the other answer over its time alone
"""

import argparse
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "real"))

from conftest import copy_template
from host_0_0 import VARIANTS
from nodes_0_0 import Node
from world_0_0 import make_world

TOKENS = 100  # of an answer
SENTENCE = "The quick brown fox jumps over the lazy dog, and the dog looks on. "  # 16 tokens
Messages = list[dict[str, str]]


def first_token(node: Node, question: str | Messages) -> tuple[float, str]:
    """The seconds until an answer's first token, and the answer."""
    begun = time.perf_counter()
    client = node.client(question, stream=True)
    client.read(1)
    return time.perf_counter() - begun, client.rest().text


def rate(node: Node, users: int, mark: str) -> float:
    """Tokens a second of so many answers at once, from their questions to the last one's end."""
    before = node.metrics()["tokens_total"]
    topics = ("rivers", "cities", "oceans", "forests", "deserts", "islands", "planets", "bread")
    questions = [f"Write a long story number {mark} about {topic}." for topic in topics[:users]]
    threads = [
        threading.Thread(target=lambda q=q: node.client(q, stream=True).rest()) for q in questions
    ]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begun
    return (node.metrics()["tokens_total"] - before) / took


def turns(node: Node, mark: str) -> list[float]:
    """The waits for the first tokens of a chat's three turns."""
    begin = f"Chat {mark}. " + SENTENCE * 27 + "What does the fox do?"
    chat = [{"role": "user", "content": begin}]
    waits = []
    for question in ("And the dog?", "Who looks on?", ""):
        seconds, answer = first_token(node, chat)
        waits.append(seconds)
        chat += [{"role": "assistant", "content": answer}, {"role": "user", "content": question}]
    return waits


def pause(node: Node, mark: str) -> tuple[float, float, float]:
    """The longest pause of another answer while a long prompt comes, and its time: both, alone."""
    alone, _ = first_token(node, f"Alone {mark}. " + SENTENCE * 92)
    times: list[float] = []
    other = node.client(f"Write a long story number {mark} about bread.", stream=True)
    other.read(5)

    def listen() -> None:
        while other.read(1):
            times.append(time.perf_counter())

    listener = threading.Thread(target=listen)
    listener.start()
    begun = time.perf_counter()
    both, _ = first_token(node, f"Beside {mark}. " + SENTENCE * 92)
    came = [begun, *(at for at in times if begun < at < begun + both)]
    listener.join()
    return max(b - a for a, b in zip(came, [*came[1:], begun + both], strict=True)), both, alone


def show(name: str, figures: list[float], unit: str = "") -> None:
    """The median, and all."""
    every = " ".join(f"{figure:.2f}" for figure in figures)
    print(f"{name:<28} {statistics.median(figures):6.2f}{unit}   ({every})", flush=True)


def measure(nodes: list[Node], rounds: int) -> None:
    """All the ratios, in rounds that take turns."""
    node = nodes[0]
    rate(node, 2, "warm")
    rates: dict[int, list[float]] = {1: [], 4: [], 8: []}
    for n in range(rounds):
        for users, seen in rates.items():
            seen.append(rate(node, users, f"{n}-{users}"))
    show("one alone", rates[1], " tokens/s")
    for users in (4, 8):
        pairs = zip(rates[users], rates[1], strict=True)
        show(f"{users} at once", [many / one for many, one in pairs])
    waits = [turns(node, f"turn-{n}") for n in range(rounds)]
    show("turn 1", [wait[0] for wait in waits], " s")
    for turn in (1, 2):
        show(f"turn {turn + 1}", [wait[turn] / wait[0] for wait in waits])
    pauses = [pause(node, f"pause-{n}") for n in range(rounds)]
    show("prompt of 1,500 tokens", [alone for _, _, alone in pauses], " s")
    show("pause", [longest / alone for longest, _, alone in pauses])
    show("prompt", [both / alone for _, both, alone in pauses])


def main() -> None:
    """One ring of nodes, and its ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a folder with SmolLM2-135M-Instruct")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nodes", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="many-users-") as name:
        template, variant = copy_template(Path(name) / "template"), VARIANTS["numpy"]
        with (
            make_world(template, Path(name), variant, options.model, played=False) as world,
            world.ring("ring", options.nodes, tokens=TOKENS) as nodes,
        ):
            measure(nodes, options.rounds)


if __name__ == "__main__":
    main()
