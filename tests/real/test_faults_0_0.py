"""What a client meets when clients, nodes and devices fail, on two nodes of a real exo 0.0.

One ring a variant for all of them, in this order.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from client_0_0 import Later, wait
from fixtures_0_0 import SOAK
from host_0_0 import EXO_PYTHON, WHY_NOT
from nodes_0_0 import Node
from world_0_0 import World

pytest_plugins = ("fixtures_0_0",)
pytestmark = [
    pytest.mark.skipif(not EXO_PYTHON, reason=WHY_NOT),
    pytest.mark.xdist_group("real-exo"),
]

QUESTION = "What is an NPU?"
END_SECONDS = 5.0  # for an answer whose node is gone
WHOLE_SECONDS = 30.0  # for a right one, on a machine that does much else
STOP_SECONDS = 7.0  # for one whose node is still connected, and says nothing
GONE_SECONDS = 30.0  # for a process to end, likewise
BACK_SECONDS = 120.0  # for a node to start and join, on a machine that does much else
# exo sorts nodes of one size by name, from the last: it gives them the first layers.
LAST, FIRST = 0, 1
rounds = pytest.mark.parametrize("round", range(SOAK))
streams = pytest.mark.parametrize("stream", [False, True])


class Ring:
    """Two nodes, and the answer to QUESTION."""

    def __init__(self, world: World, nodes: list[Node]) -> None:
        self.world, self.nodes = world, nodes
        self.split = not world.host.variant.has_server
        self.answer = nodes[0].ask(QUESTION).text

    def slow(self, seconds: float = 0.02) -> None:
        """An answer takes some seconds."""
        for node in self.nodes:
            node.play(seconds=seconds)

    def computing(self) -> list[Node]:
        """The nodes that compute a part of an answer."""
        return self.nodes if self.split else [self.nodes[LAST]]

    def running(self, node: Node) -> list[Later]:
        """Answers that run: one is streamed, one is not."""
        self.slow()
        running = [node.later(QUESTION, stream) for stream in (False, True)]
        assert wait(lambda: all(n.in_flight() == 2 for n in self.computing()), WHOLE_SECONDS)
        time.sleep(0.3)  # and the stream has begun
        return running

    def is_well(self, node: Node) -> bool:
        """Whether a node sees all, and answers."""
        return node.sees() == len(self.nodes) and node.ask(QUESTION).text == self.answer

    def right_again(self, node: Node, seconds: float = 10.0) -> None:
        """Until an answer is right, each is a sentence, and soon."""
        until = time.monotonic() + seconds
        while (reply := node.ask(QUESTION)).text != self.answer:
            assert reply.is_sentence(), reply
            assert reply.seconds < END_SECONDS, reply
            assert time.monotonic() < until, reply
            time.sleep(0.2)


@pytest.fixture(scope="module")
def ring(world: World) -> Iterator[Ring]:
    """A ring of two whose devices may take a second for a step."""
    settings = {
        "EXO_NUMPY_STEP_SECONDS": "3",
        "EXO_ONNX_STEP_SECONDS": "3",
        "EXO_OPENAI_SILENCE_SECONDS": "1",
        "RKLLM_SILENCE_SECONDS": "1",
        "RKLLM_DRAIN_SECONDS": "1",
    }
    with world.ring("ring", 2, tokens=90, **settings) as nodes:
        yield Ring(world, nodes)


@pytest.fixture(autouse=True)
def whole_again(ring: Ring) -> Iterator[None]:
    """Whatever a test has done, the next one finds a ring that answers; its logs where it fails."""
    yield
    for node in ring.nodes:
        node.play()

    def is_whole() -> bool:
        for node in ring.nodes:  # one may still be on its way out
            if node.process is not None and node.process.poll() is not None:
                node.start()
        return all(ring.is_well(node) for node in ring.nodes)

    well = wait(is_whole, BACK_SECONDS)
    assert well, "\n".join(node.log[-4000:] for node in ring.nodes)


def ended(running: list[Later], words: str, seconds: float = END_SECONDS) -> None:
    """Each reply is a sentence, and comes in time."""
    begun = time.monotonic()
    replies = [each.get() for each in running]
    assert time.monotonic() - begun < seconds, replies
    for reply in replies:
        assert reply.is_sentence(words), reply
        assert reply.status in (200, 503), reply


def test_a_stream_is_what_is_said_without_one(ring: Ring) -> None:
    for question in (QUESTION, "\u65e5\u672c\u8a9e \U0001f642", "\u0928\u092e\u0938"):
        whole, streamed = ring.nodes[0].ask(question), ring.nodes[1].ask(question, True)
        assert streamed.text == whole.text
        assert "<|im_end|>" not in whole.text


@streams
@pytest.mark.parametrize("bad", [LAST, FIRST])
def test_a_step_that_fails_is_told(ring: Ring, bad: int, stream: bool) -> None:
    if ring.nodes[bad] not in ring.computing():
        pytest.skip("this node's device computes nothing")
    for at in (1, 5):
        ring.nodes[bad].play(fails_at=at)
        for node in ring.nodes:
            reply = node.ask(QUESTION, stream)
            assert reply.is_sentence("the device lost its memory"), reply
            assert reply.status == (200 if stream and at > 1 else 500)
            assert reply.seconds < END_SECONDS
        assert all(wait(lambda n=node: not n.in_flight(), END_SECONDS) for node in ring.nodes)
    assert "Traceback" not in ring.nodes[0].log + ring.nodes[1].log


@rounds
@streams
@pytest.mark.parametrize("index", [0, 1])
def test_a_client_that_goes_away_is_counted_once_where_it_is_computed(
    ring: Ring, stream: bool, index: int, round: int
) -> None:
    before = [node.outcomes() for node in ring.nodes]
    ring.slow()
    client = ring.nodes[index].client(QUESTION, stream)
    if stream:
        client.read(3)
    else:
        assert wait(lambda: all(n.in_flight() for n in ring.computing()), WHOLE_SECONDS)
    client.leave()
    expected = [
        counts | {"cancelled": counts["cancelled"] + (node in ring.computing())}
        for node, counts in zip(ring.nodes, before, strict=True)
    ]
    assert wait(lambda: not any(node.in_flight() for node in ring.nodes), END_SECONDS)
    assert [node.outcomes() for node in ring.nodes] == expected


def test_each_answer_is_counted_once_where_it_is_computed(ring: Ring) -> None:
    before = [node.outcomes() for node in ring.nodes]
    for node in ring.nodes:
        assert node.ask(QUESTION).text == ring.answer
    expected = [
        counts | {"finished": counts["finished"] + 2 * (node in ring.computing())}
        for node, counts in zip(ring.nodes, before, strict=True)
    ]
    assert wait(lambda: [node.outcomes() for node in ring.nodes] == expected, WHOLE_SECONDS)


def test_another_model_waits_for_the_answer_in_flight(ring: Ring) -> None:
    ring.slow()
    running = ring.nodes[0].later(QUESTION)
    assert wait(lambda: all(n.in_flight() for n in ring.computing()), WHOLE_SECONDS)
    assert ring.nodes[1].ask(QUESTION, model=1).status == 200
    assert running.get().text == ring.answer


@contextmanager
def hanging(ring: Ring) -> Iterator[Node]:
    """The device of the last layers' node says nothing more; a server's process is stopped."""
    node = ring.nodes[LAST]
    if ring.world.server is None:
        node.play(hangs=1)
    else:
        ring.world.server.send_signal(signal.SIGSTOP)
    try:
        yield node
    finally:
        node.play()
        if ring.world.server is not None:
            ring.world.server.send_signal(signal.SIGCONT)


def test_a_device_that_hangs_is_told_and_comes_back(ring: Ring) -> None:
    if ring.split:
        ring.slow()  # a server takes a second by itself, and must not have sent all of it
    client = ring.nodes[0].client(QUESTION, stream=True)
    client.read(3)
    with hanging(ring) as node:
        reply = client.rest()
        assert reply.is_sentence("STEP_SECONDS" if ring.split else "silent for too long"), reply
        assert node.metrics()["backend_up"] == 0
        assert ring.nodes[0].ask(QUESTION).is_sentence()
    assert wait(lambda: node.metrics()["backend_up"] == 1, WHOLE_SECONDS)


@rounds
@pytest.mark.parametrize("dead", [FIRST, LAST])
def test_a_node_that_is_killed_is_left_out_at_once(ring: Ring, dead: int, round: int) -> None:
    gone, alive = ring.nodes[dead], ring.nodes[1 - dead]
    running, mark = ring.running(alive), len(alive.log)
    gone.send(signal.SIGKILL)
    ended(running, "Send the request again")
    alive.play()
    ring.right_again(alive)
    written = alive.log[mark:]
    assert written.count("can't be reached: it is left out") == 1
    assert "Traceback" not in written
    assert len(written.splitlines()) < 12
    come_back(ring, gone, alive)


@rounds
@pytest.mark.parametrize("dead", [FIRST, LAST])
@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_closes_the_device_and_tells_the_clients(
    ring: Ring, dead: int, which: signal.Signals, round: int
) -> None:
    gone, alive = ring.nodes[dead], ring.nodes[1 - dead]
    closed, running = gone.closed(), ring.running(gone)
    mark = len(gone.log)
    gone.send(which)
    assert gone.gone(GONE_SECONDS)
    assert gone.closed() - closed in ([1] if gone in ring.computing() else [0, 1])
    ended(running, "this node was stopped")
    assert f"/{gone.variant.package}/" not in gone.log[mark:]  # no traceback of this plugin's
    alive.play()
    come_back(ring, gone, alive)


def come_back(ring: Ring, gone: Node, alive: Node) -> None:
    """While a node starts again, its peer's clients get an answer or a sentence, and soon."""
    gone.play()
    gone.start()
    until = time.monotonic() + 12
    while time.monotonic() < until or not ring.is_well(alive):
        reply = alive.ask(QUESTION, True)
        is_right = reply.text == ring.answer
        assert is_right or reply.is_sentence(), reply
        assert reply.seconds < (WHOLE_SECONDS if is_right else END_SECONDS), reply
        assert time.monotonic() < until + BACK_SECONDS, alive.log[-4000:]
        time.sleep(0.2)


@rounds
@pytest.mark.parametrize("dead", [FIRST, LAST])
def test_a_node_that_is_stopped_is_left_out_and_taken_back(
    ring: Ring, dead: int, round: int
) -> None:
    gone, alive = ring.nodes[dead], ring.nodes[1 - dead]
    running = ring.running(alive)
    gone.send(signal.SIGSTOP)
    try:
        ended(running, "Send the request again", STOP_SECONDS)
        alive.play()
        ring.right_again(alive)
    finally:
        gone.send(signal.SIGCONT)
    gone.play()
    assert wait(lambda: alive.sees() == gone.sees() == 2, BACK_SECONDS)
    for node in ring.nodes:
        ring.right_again(node)


@rounds
def test_a_node_that_dies_with_the_prompt_ends_the_answer(ring: Ring, round: int) -> None:
    """It has taken the prompt, or the messages, and nothing of it went on to its peer."""
    for dead in (FIRST, LAST):
        gone, alive = ring.nodes[dead], ring.nodes[1 - dead]
        gone.send(signal.SIGSTOP)
        running = [alive.later(QUESTION, stream) for stream in (False, True)]
        time.sleep(0.3)
        gone.send(signal.SIGKILL)
        begun = time.monotonic()
        for reply in [each.get() for each in running]:
            assert reply.is_sentence("Send the request again") or reply.text == ring.answer, reply
        assert time.monotonic() - begun < END_SECONDS
        ring.right_again(alive)
        gone.start()
        assert wait(lambda alive=alive: ring.is_well(alive), BACK_SECONDS)


@rounds
def test_a_signal_while_the_device_hangs_tells_every_client(ring: Ring, round: int) -> None:
    with hanging(ring) as node:
        running = [node.later(QUESTION, stream) for stream in (False, True, False, True)]
        time.sleep(0.5)
        node.send(signal.SIGTERM)
        assert node.gone(GONE_SECONDS)
        for reply in [each.get() for each in running]:
            assert reply.is_sentence(), reply
            assert reply.seconds < END_SECONDS, reply


@pytest.mark.parametrize("debug", ["0", "1"])
def test_the_reader_of_a_nodes_log_may_go_away(ring: Ring, debug: str) -> None:
    node = ring.nodes[LAST]
    node.send(signal.SIGTERM)
    assert node.gone()
    node.settings["DEBUG"] = debug
    reader = node.start_into_a_pipe()
    assert wait(lambda: all(ring.is_well(each) for each in ring.nodes), BACK_SECONDS)
    reader.close()
    assert [each.ask(QUESTION, True).text for each in ring.nodes] == [ring.answer] * 2
    node.send(signal.SIGTERM)
    assert node.gone(GONE_SECONDS)
    del node.settings["DEBUG"]


@rounds
def test_a_node_that_joins_waits_for_the_answer_in_flight(ring: Ring, round: int) -> None:
    joins, alone = ring.nodes[FIRST], ring.nodes[LAST]
    joins.send(signal.SIGINT)
    assert joins.gone()
    ring.right_again(alone)
    joins.start()
    alone.play(seconds=0.09)
    assert alone.later(QUESTION).get().text == ring.answer
    alone.play()
    assert wait(lambda: alone.sees() == joins.sees() == 2, BACK_SECONDS)
    ring.right_again(joins)


@pytest.mark.parametrize("dead", [0, 1, 2])
@pytest.mark.parametrize("which", [signal.SIGKILL, signal.SIGTERM])
def test_of_three_nodes_any_may_go(
    world: World, ring: Ring, dead: int, which: signal.Signals
) -> None:
    """A whole model too, on each of its nodes: EXO_ONNX_WHOLE is no different from a server."""
    with world.ring(f"three-{dead}-{which.name}", 3, tokens=90, EXO_ONNX_WHOLE="1") as nodes:
        three = Ring(world, nodes)
        three.split = world.host.variant.name == "numpy"
        three.slow()
        alive = [node for node in nodes if node is not nodes[dead]]
        running = [node.later(QUESTION, stream) for node in alive for stream in (False, True)]
        assert wait(lambda: all(n.in_flight() == 4 for n in three.computing()), WHOLE_SECONDS)
        time.sleep(0.3)
        nodes[dead].send(which)
        ended(running, "Send the request again")
        for node in nodes:
            node.play()
        for node in alive:
            three.right_again(node, 20)
