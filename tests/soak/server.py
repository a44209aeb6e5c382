"""The end of a node whose device is an rkllama server: the server is left whole.

Run by hand, with an rkllama that serves Qwen2.5-1.5B-Instruct, in an environment with this
repository's test extra, EXO_PYTHON set as for tests/test_real_exo.py:

    python tests/soak/server.py http://127.0.0.1:8080 FOLDER_WITH_THE_TOKENIZER

Prints case, what was seen and its bound, and ends with 1 when one is over.
"""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from nodes import Client, Later, Node, Table, World, ask

MODEL = "qwen2.5-1.5b-instruct-rkllama"
QUESTION = "What is an NPU?"


def first_answer(node: Node) -> float:
    """How long a node's first answer takes."""
    reply = ask(node.api, QUESTION, model=MODEL)
    assert reply.status == 200, reply
    return reply.seconds


def main() -> int:
    """Nodes that end idle and in the middle of answers, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="the server's")
    parser.add_argument("tokenizer", type=Path)
    options = parser.parse_args()
    table = Table()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        world = World(Path(name), tokenizer=options.tokenizer, variant="rkllm")
        took: dict[str, float] = {}
        for n, how in enumerate(("first", "idle", "stream", "whole", "last")):
            with world.ring(f"{n}-{how}", 1, RKLLM_SERVER_URL=options.url) as [node]:
                took[how] = first_answer(node)
                before = "the stop before"
                if n > 1:
                    bound = took["idle"] + 1.0
                    table.most(f"first answer after {before} this {how}", took[how], bound)
                running = None
                if how == "stream":
                    client = Client(node.api, QUESTION, stream=True, model=MODEL)
                    client.read(2)
                if how == "whole":
                    running = Later(node.api, QUESTION, model=MODEL)
                    time.sleep(0.2)
                node.send(signal.SIGTERM)
                table.most(f"{how}: SIGTERM, gone", node.gone(), 3.0)
                if running is not None:
                    reply = running.get()
                    table.true(f"{how}: its client has a sentence", reply.status == 503, reply.text)
                own = [line for line in node.log.splitlines() if "/exo_rkllm/" in line]
                table.true(f"{how}: no traceback of the plugin's", not own, own[:3] or "yes")
        table.row("first answers", {how: f"{s:.2f}" for how, s in took.items()}, "s", True)
    print(f"{table.over} over")
    return int(table.over > 0)


if __name__ == "__main__":
    sys.exit(main())
