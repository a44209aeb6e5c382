"""What a client and an operator meet: clients, nodes and devices that fail, on a real exo.

Run by hand, in an environment with this repository's test extra, EXO_PYTHON set as for
tests/test_real_exo.py:

    python tests/soak/faults.py [CASE ...] [--smollm2 FOLDER]

Prints case, what was seen and its bound, and ends with 1 when one is over.
"""

import argparse
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from nodes import MODEL, OTHER_MODEL, PACKAGE, Client, Later, Node, Reply, Table, World, ask, wait

QUESTION = "What is an NPU?"
Case = Callable[[World, Table], None]
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    """A case that can be asked for by its name."""
    CASES[function.__name__] = function
    return function


def told(reply: Reply, stream: bool = False) -> bool:
    """Whether a client got a sentence, and nothing that looks like a whole answer."""
    if PACKAGE not in reply.text:
        return False
    begun = stream and reply.status == 200
    return reply.finish != "stop" if begun else reply.status in (500, 503)


def right(reply: Reply, answer: str) -> bool:
    """Whether it is the answer."""
    return reply.status == 200 and reply.text == answer


def shown(reply: Reply) -> str:
    """A reply in a table."""
    text = reply.text if len(reply.text) < 90 else f"{reply.text[:20]}…{reply.text[-69:]}"
    return f"{reply.status} {reply.finish} {reply.seconds:.2f} s {text!r}"


def at_work(node: Node, stream: bool, seconds: float = 0.02) -> tuple[Client, Later | None]:
    """An answer that runs: a stream that has begun."""
    node.play(seconds=seconds)
    client = Client(node.api, QUESTION, stream=stream)
    client.read(5)
    return client, None


def quiet(nodes: list[Node], seconds: float = 5.0) -> float | None:
    """How long until no node holds a request."""
    begun = time.monotonic()
    done = wait(
        lambda: all(node.metrics().get("requests_in_flight") == 0 for node in nodes), seconds
    )
    return time.monotonic() - begun if done else None


@case
def clients(world: World, table: Table) -> None:
    """Clients that go away, in a stream, without one and in a prefill."""
    for size in (1, 2):
        with world.ring(f"clients{size}", size) as nodes:
            answer = ask(nodes[0].api, QUESTION).text
            for api, stream in [(n, s) for n in nodes for s in (True, False)]:
                before = [node.outcomes().get("cancelled", 0) for node in nodes]
                for node in nodes:
                    node.play(seconds=0.02)
                client = Client(api.api, QUESTION, stream=stream)
                if stream:
                    client.read(5)
                else:
                    time.sleep(0.6)
                client.leave()
                name = f"{size}: client of {api.name} gone, {'streamed' if stream else 'whole'}"
                table.most(f"{name}: ended on every node", quiet(nodes), 1.0)
                after = [node.outcomes().get("cancelled", 0) for node in nodes]
                gained = [b - a for a, b in zip(before, after, strict=True)]
                table.true(f"{name}: counted cancelled", gained == [1] * size, gained)
            for node in nodes:
                node.play(prefill=0.8)
            client = Client(nodes[-1].api, QUESTION, stream=True)
            time.sleep(0.3)
            client.leave()
            table.most(f"{size}: gone during prefill: ended", quiet(nodes), 0.8 * size + 1.0)
            cancelled = sum(node.outcomes().get("cancelled", 0) for node in nodes)
            for node in nodes:
                node.play()
            table.true(f"{size}: counted cancelled", cancelled >= size * (2 * size) + 1, cancelled)
            table.true(
                f"{size}: the next answer is right", right(ask(nodes[0].api, QUESTION), answer)
            )
            table.true(f"{size}: nothing failed", not nodes[0].outcomes().get("failed"))
            table.true(f"{size}: no question in a log", all(QUESTION not in n.log for n in nodes))


def lines(node: Node, mark: int) -> int:
    """How many lines a node has logged since a mark."""
    return len(node.log[mark:].splitlines())


def healed(node: Node, answer: str, seconds: float = 40.0) -> tuple[float | None, list[Reply]]:
    """Ask until an answer is right: how long that took, and what came before."""
    begun, others = time.monotonic(), []
    while time.monotonic() - begun < seconds:
        reply = ask(node.api, QUESTION, seconds=20)
        if right(reply, answer):
            return time.monotonic() - begun, others
        others.append(reply)
        time.sleep(0.2)
    return None, others


@case
def kill(world: World, table: Table) -> None:
    """kill -9 of a node in the middle of an answer, either of two."""
    for dead in (0, 1):
        with world.ring(f"kill{dead}", 2) as nodes:
            alive = nodes[1 - dead]
            answer = ask(alive.api, QUESTION).text
            for node in nodes:
                node.play(seconds=0.02)
            client = Client(alive.api, QUESTION, stream=True)
            client.read(5)
            whole = Later(alive.api, QUESTION)
            time.sleep(0.3)
            mark, begun = len(alive.log), time.monotonic()
            nodes[dead].send(signal.SIGKILL)
            reply = client.rest()
            name = f"kill -9 of {nodes[dead].name}"
            table.most(f"{name}: the stream ends", time.monotonic() - begun, 3.5)
            table.true(f"{name}: with a sentence", told(reply, True), shown(reply))
            reply = whole.get()
            table.most(f"{name}: the other ends", time.monotonic() - begun, 3.5)
            table.true(
                f"{name}: with a sentence, 503", told(reply) and reply.status == 503, shown(reply)
            )
            alive.play()
            took, others = healed(alive, answer)
            table.most(f"{name}: right again", took, 5.0)
            table.most(
                f"{name}: slowest answer before", max((r.seconds for r in others), default=0), 2.0
            )
            table.true(
                f"{name}: each with a sentence",
                all(map(told, others)),
                [shown(r) for r in others][:3],
            )
            time.sleep(6)
            table.most(f"{name}: lines of log", lines(alive, mark), 10, "lines")
            table.true(f"{name}: no traceback", "Traceback" not in alive.log[mark:])
            mark = len(alive.log)
            begun = time.monotonic()
            nodes[dead].start()
            wait(lambda alive=alive, dead=dead: alive.sees() == nodes[dead].sees() == 2)
            took, others = healed(alive, answer)
            table.most(f"{name}: back, right after it answers", took, 10.0)
            table.true(f"{name}: no answer failed", not others, [shown(r) for r in others][:3])
            if table.over:
                print(alive.log[mark - 3000 :])


@case
def stop(world: World, table: Table) -> None:
    """SIGSTOP of a node in the middle of an answer."""
    for dead in (0, 1):
        with world.ring(f"stop{dead}", 2) as nodes:
            alive = nodes[1 - dead]
            answer = ask(alive.api, QUESTION).text
            for node in nodes:
                node.play(seconds=0.02)
            client = Client(alive.api, QUESTION, stream=True)
            client.read(5)
            mark, begun = len(alive.log), time.monotonic()
            nodes[dead].send(signal.SIGSTOP)
            reply = client.rest()
            name = f"SIGSTOP of {nodes[dead].name}"
            table.most(f"{name}: the stream ends", time.monotonic() - begun, 5.0)
            table.true(f"{name}: with a sentence", told(reply, True), shown(reply))
            alive.play()
            took, others = healed(alive, answer)
            table.most(f"{name}: right again", took, 10.0)
            table.most(
                f"{name}: slowest answer before", max((r.seconds for r in others), default=0), 5.0
            )
            table.true(
                f"{name}: each with a sentence",
                all(map(told, others)),
                [shown(r) for r in others][:3],
            )
            time.sleep(8)
            table.most(f"{name}: lines of log", lines(alive, mark), 10, "lines")
            nodes[dead].send(signal.SIGCONT)
            nodes[dead].play()
            wait(lambda alive=alive, dead=dead: alive.sees() == nodes[dead].sees() == 2)
            took, others = healed(alive, answer)
            table.most(f"{name}: goes on, right again", took, 10.0)
            table.true(
                f"{name}: each with a sentence",
                all(map(told, others)),
                [shown(r) for r in others][:3],
            )
            took, others = healed(nodes[dead], answer)
            table.most(f"{name}: right on that node too", took, 10.0)
            if table.over:
                print(alive.log[mark:][-6000:])


@case
def restart(world: World, table: Table) -> None:
    """A node of two is restarted while clients ask every second."""
    for gone in (0, 1):
        with world.ring(f"restart{gone}", 2) as nodes:
            alive = nodes[1 - gone]
            answer = ask(alive.api, QUESTION).text
            asked: list[tuple[float, Reply]] = []
            over = threading.Event()

            def asking(
                stream: bool,
                over: threading.Event = over,
                asked: list[tuple[float, Reply]] = asked,
                alive: Node = alive,
            ) -> None:
                while not over.is_set():
                    begun = time.monotonic()
                    reply = ask(alive.api, QUESTION, stream, seconds=30)
                    asked.append((begun, reply))
                    over.wait(max(0.0, 1.0 - (time.monotonic() - begun)))

            threads = [threading.Thread(target=asking, args=(s,)) for s in (True, False)]
            mark = len(alive.log)
            for thread in threads:
                thread.start()
            time.sleep(2)
            nodes[gone].send(signal.SIGTERM)
            nodes[gone].gone()
            time.sleep(1.0)
            nodes[gone].start()
            back = wait(lambda gone=gone: nodes[gone].sees() > 0) and time.monotonic()
            time.sleep(16)
            over.set()
            for thread in threads:
                thread.join(40)
            name = f"restart of {nodes[gone].name}"
            replies = [reply for _, reply in asked]
            table.most(
                f"{name}: slowest of {len(replies)} asks", max(r.seconds for r in replies), 5.0
            )
            wrong = [
                shown(r)
                for r in replies
                if not right(r, answer) and not told(r, True) and not told(r)
            ]
            table.true(f"{name}: right or a sentence", not wrong, wrong[:3] or "yes")
            bad = [begun for begun, r in asked if not right(r, answer)]
            table.row(f"{name}: answered with a sentence", len(bad), "", True)
            late = max((begun - (back or 0) for begun in bad), default=0.0)
            table.most(f"{name}: right again after it is back", late, 10.0)
            both = alive.sees(), nodes[gone].sees()
            table.true(f"{name}: both see two", both == (2, 2), both)
            table.true(f"{name}: right on it too", right(ask(nodes[gone].api, QUESTION), answer))
            table.most(f"{name}: lines of log", lines(alive, mark), 20, "lines")
            table.true(f"{name}: no traceback", "Traceback" not in alive.log[mark:])
            if table.over:
                for at, reply in sorted(asked, key=lambda each: each[0]):
                    print(f"{at - (back or 0):7.2f} {shown(reply)}")
                print(alive.log[mark:][-6000:])
                print(nodes[gone].log[-6000:])


@case
def join(world: World, table: Table) -> None:
    """A node that joins while an answer runs waits for it."""
    with world.ring("join", 2, start=1) as nodes:
        first, second = nodes
        answer = ask(first.api, QUESTION).text
        second.start()
        wait(lambda: second.sees() > 0)
        first.play(seconds=0.04)
        begun = time.monotonic()
        running = Later(first.api, QUESTION)
        streamed = Later(first.api, QUESTION, True)
        replies = running.get(), streamed.get()
        ended = time.monotonic() - begun
        first.play()
        table.true(
            "join: the answers in flight are right",
            all(right(r, answer) for r in replies),
            [shown(r) for r in replies],
        )
        joined = wait(lambda: first.sees() == second.sees() == 2, 20)
        table.most(
            "join: joined after their end",
            time.monotonic() - begun - ended if joined else None,
            8.0,
        )
        took, others = healed(first, answer)
        table.most("join: right on two", took, 10.0)
        table.true(
            "join: each before with a sentence",
            all(map(told, others)),
            [shown(r) for r in others][:3],
        )
        table.true("join: right on the new one", right(ask(second.api, QUESTION), answer))
        if table.over:
            print(first.log[-5000:], second.log[-5000:])


@case
def model(world: World, table: Table) -> None:
    """Another model is asked for while an answer runs."""
    for size in (1, 2):
        with world.ring(f"model{size}", size) as nodes:
            answer = ask(nodes[0].api, QUESTION).text
            other = ask(nodes[0].api, QUESTION, model=OTHER_MODEL).text
            ask(nodes[0].api, QUESTION)
            for node in nodes:
                node.play(seconds=0.01)
            running = Later(nodes[0].api, QUESTION)
            time.sleep(0.5)
            second = ask(nodes[-1].api, QUESTION, model=OTHER_MODEL)
            first = running.get()
            table.true(
                f"model change, {size}: the answer in flight is right",
                right(first, answer),
                shown(first),
            )
            table.true(
                f"model change, {size}: the other model's too", right(second, other), shown(second)
            )
            for node in nodes:
                node.play()
            third = ask(nodes[0].api, QUESTION, model=MODEL)
            table.true(f"model change, {size}: and back", right(third, answer), shown(third))
            if table.over:
                print(nodes[0].log[-5000:])


@case
def steps(world: World, table: Table) -> None:
    """First and later steps that fail, on either node."""
    for size in (1, 2):
        with world.ring(f"steps{size}", size) as nodes:
            answer = ask(nodes[0].api, QUESTION).text
            for bad in nodes:
                for at in (1, 6):
                    for stream in (False, True):
                        for asked in nodes:
                            marks = {node.name: len(node.log) for node in nodes}
                            bad.play(fails_at=at)
                            reply = ask(asked.api, QUESTION, stream)
                            bad.play()
                            how = "streams" if stream else ""
                            name = f"{size}: step {at} fails on {bad.name}, {asked.name} {how}"
                            well = told(reply, stream) and reply.seconds < 2
                            well &= "lost its memory" in reply.text
                            well &= reply.status == (200 if stream and at > 1 else 500)
                            well &= not (stream and at > 1) or reply.events > 1
                            table.true(name, well, shown(reply))
                            held = quiet(nodes, 2.0)
                            faults = sum(lines(node, marks[node.name]) for node in nodes)
                            table.most(f"{name}: ended everywhere", held, 1.0)
                            table.most(f"{name}: lines of log", faults, 3, "lines")
            for node in nodes:
                table.true(
                    f"{size}: the next answer is right", right(ask(node.api, QUESTION), answer)
                )
            if table.over:
                for node in nodes:
                    print(node.log[-3000:])


@case
def hang(world: World, table: Table) -> None:
    """A device that hangs in a step."""
    for size in (1, 2):
        settings = {"EXO_NUMPY_STEP_SECONDS": "1"}
        with world.ring(f"hang{size}", size, **settings) as nodes:
            answer = ask(nodes[0].api, QUESTION).text
            for node in nodes:
                node.play(seconds=0.02)
            client = Client(nodes[0].api, QUESTION, stream=True)
            client.read(5)
            bad = nodes[-1]
            mark, begun = len(bad.log), time.monotonic()
            bad.play(hangs=1)
            reply = client.rest()
            table.most(f"hang, {size}: the stream ends", time.monotonic() - begun, 2.5)
            table.true(f"hang, {size}: with a sentence", told(reply, True), shown(reply))
            table.true(f"hang, {size}: backend_up is 0", bad.metrics().get("backend_up") == 0)
            for stream in (False, True):
                reply = ask(nodes[0].api, QUESTION, stream)
                table.most(f"hang, {size}: the next ask ends", reply.seconds, 1.0)
                table.true(f"hang, {size}: with a sentence", told(reply), shown(reply))
            table.most(f"hang, {size}: lines of log", lines(bad, mark), 3, "lines")
            bad.play()
            begun = time.monotonic()
            up = wait(lambda bad=bad: bad.metrics().get("backend_up") == 1, 10)
            table.most(
                f"hang, {size}: backend_up is 1", time.monotonic() - begun if up else None, 6.0
            )
            again = ask(nodes[0].api, QUESTION)
            table.true(f"hang, {size}: right again", right(again, answer), shown(again))
            if table.over:
                print(bad.log[mark - 2000 :])
            bad.play(hangs=1)
            running = Later(nodes[0].api, QUESTION, True)
            time.sleep(0.5)
            begun = time.monotonic()
            bad.send(signal.SIGTERM)
            table.most(f"hang, {size}: SIGTERM in a hang ends the node", bad.gone(), 3.0)
            reply = running.get()
            table.most(f"hang, {size}: its client has an answer", time.monotonic() - begun, 3.0)
            table.true(f"hang, {size}: with a sentence", told(reply, True), shown(reply))


@case
def ends(world: World, table: Table) -> None:
    """SIGTERM and SIGINT, idle and in the middle of answers."""
    for which in (signal.SIGTERM, signal.SIGINT):
        for size in (1, 2):
            for busy in (False, True):
                name = f"{which.name}, {size} nodes, {'busy' if busy else 'idle'}"
                with world.ring(f"ends-{which.name}-{size}-{busy}", size) as nodes:
                    ask(nodes[0].api, QUESTION)
                    ended = nodes[0]
                    mark, running = len(ended.log), []
                    if busy:
                        for node in nodes:
                            node.play(seconds=0.03)
                        running = [Later(node.api, QUESTION, s) for node in nodes for s in (0, 1)]
                        time.sleep(1.0)
                    ended.send(which)
                    begun = time.monotonic()
                    table.most(f"{name}: gone", ended.gone(), 3.0)
                    table.true(f"{name}: device closed once", ended.closed() == 1, ended.closed())
                    for reply in [each.get() for each in running]:
                        well = told(reply, reply.status == 200)
                        table.true(f"{name}: client has a sentence", well, shown(reply))
                    if running:
                        table.most(f"{name}: clients' wait", time.monotonic() - begun, 3.0)
                    own = [line for line in ended.log[mark:].splitlines() if f"/{PACKAGE}/" in line]
                    table.true(f"{name}: no traceback of the plugin's", not own, own[:3] or "yes")
                    assert ended.process is not None
                    table.row(f"{name}: exit code", ended.process.returncode, "exo's", True)
                    if table.over:
                        print(ended.log[mark:])


def main() -> int:
    """Run the cases that are asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}")
    parser.add_argument("--smollm2", type=Path, help="a folder with SmolLM2-135M-Instruct")
    options = parser.parse_args()
    table = Table()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        world = World(Path(name), options.smollm2)
        for each in options.cases or CASES:
            CASES[each](world, table)
    print(f"{table.over} over")
    return int(table.over > 0)


if __name__ == "__main__":
    sys.exit(main())
