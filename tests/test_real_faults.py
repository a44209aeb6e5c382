"""What a client meets when clients, nodes and devices fail, on two nodes of a real exo.

One ring for all of them, in this order; tests/soak has more, with figures.
"""

import signal
import time
from collections.abc import Iterator

import pytest
from real_exo import EXO_PYTHON
from soak.nodes import OTHER_MODEL, PACKAGE, Client, Later, Node, Reply, World, ask, wait

pytestmark = [
    pytest.mark.skipif(
        not EXO_PYTHON, reason="EXO_PYTHON is not set to the Python of an environment with exo"
    ),
    pytest.mark.xdist_group("real-exo"),
]

QUESTION = "What is an NPU?"
Ring = tuple[list[Node], str]


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ring]:
    """Two nodes, and the answer to QUESTION."""
    world = World(tmp_path_factory.mktemp("faults"))
    settings = {"EXO_NUMPY_STEP_SECONDS": "1"}
    with world.ring("ring", 2, tokens=100, **settings) as nodes:
        yield nodes, ask(nodes[0].api, QUESTION).text


@pytest.fixture(autouse=True)
def whole_again(ring: Ring) -> Iterator[None]:
    """Whatever a test has done, the next one finds a ring that answers; its logs where it fails."""
    yield
    nodes, answer = ring
    for node in nodes:
        node.play()
        if node.process is not None and node.process.poll() is not None:
            node.start()
    well = wait(lambda: all(healthy(node, answer) for node in nodes), 30)
    assert well, "\n".join(node.log[-4000:] for node in nodes)


def healthy(node: Node, answer: str) -> bool:
    """Whether a node sees both, and answers."""
    return node.sees() == 2 and ask(node.api, QUESTION).text == answer


def told(reply: Reply, words: str = "") -> bool:
    """Whether a client got a sentence, and nothing that looks like a whole answer."""
    fails = reply.finish != "stop" if reply.events else reply.status in (500, 503)
    return fails and PACKAGE in reply.text and words in reply.text


def slow(nodes: list[Node]) -> None:
    """An answer takes some seconds."""
    for node in nodes:
        node.play(seconds=0.01)


def test_a_stream_is_what_is_said_without_one(ring: Ring) -> None:
    nodes, _ = ring
    for question in (QUESTION, "\u65e5\u672c\u8a9e \U0001f642", "\u0928\u092e\u0938"):
        whole, streamed = ask(nodes[0].api, question), ask(nodes[1].api, question, True)
        assert streamed.text == whole.text
        assert "<|im_end|>" not in whole.text


@pytest.mark.parametrize("bad", [0, 1])
@pytest.mark.parametrize("stream", [False, True])
def test_a_step_that_fails_is_told(ring: Ring, bad: int, stream: bool) -> None:
    nodes, _ = ring
    for at in (1, 5):
        nodes[bad].play(fails_at=at)
        for node in nodes:
            reply = ask(node.api, QUESTION, stream)
            assert told(reply, "the device lost its memory"), reply
            assert reply.status == (200 if stream and at > 1 else 500)
            assert reply.seconds < 5
        assert all(wait(lambda n=node: not n.metrics()["requests_in_flight"], 5) for node in nodes)
    assert "Traceback" not in nodes[0].log + nodes[1].log


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_is_cancelled_everywhere(ring: Ring, stream: bool) -> None:
    nodes, _ = ring
    before = [node.outcomes()["cancelled"] for node in nodes]
    slow(nodes)
    client = Client(nodes[0].api, QUESTION, stream=stream)
    if stream:
        client.read(3)
    else:
        assert wait(lambda: all(n.metrics()["requests_in_flight"] for n in nodes), 5)
    client.leave()
    after = [cancelled + 1 for cancelled in before]
    assert wait(lambda: [node.outcomes()["cancelled"] for node in nodes] == after, 3)
    assert not any(node.metrics()["requests_in_flight"] for node in nodes)


def test_another_model_waits_for_the_answer_in_flight(ring: Ring) -> None:
    nodes, answer = ring
    slow(nodes)
    running = Later(nodes[0].api, QUESTION)
    assert wait(lambda: all(n.metrics()["requests_in_flight"] for n in nodes), 5)
    assert ask(nodes[1].api, QUESTION, model=OTHER_MODEL).status == 200
    assert running.get().text == answer


def test_a_device_that_hangs_is_told_and_comes_back(ring: Ring) -> None:
    nodes, _ = ring
    slow(nodes)
    client = Client(nodes[0].api, QUESTION, stream=True)
    client.read(3)
    nodes[1].play(hangs=1)
    reply = client.rest()
    assert told(reply, "EXO_NUMPY_STEP_SECONDS"), reply
    assert nodes[1].metrics()["backend_up"] == 0
    assert told(ask(nodes[0].api, QUESTION))
    nodes[1].play()
    assert wait(lambda: nodes[1].metrics()["backend_up"] == 1, 10)
    assert nodes[1].log.count("the device hangs in a step") == 1


def in_flight(nodes: list[Node], asked: Node) -> list[Later]:
    """Answers that run on both nodes."""
    slow(nodes)
    running = [Later(asked.api, QUESTION, stream) for stream in (False, True)]
    assert wait(lambda: all(n.metrics()["requests_in_flight"] == 2 for n in nodes), 5)
    time.sleep(0.3)  # and the stream has begun
    return running


def test_a_node_that_is_killed_is_left_out_at_once(ring: Ring) -> None:
    nodes, answer = ring
    gone, alive = nodes
    running, mark, begun = in_flight(nodes, alive), len(alive.log), time.monotonic()
    gone.send(signal.SIGKILL)
    assert all(told(each.get(), "Send the request again") for each in running)
    assert wait(lambda: ask(alive.api, QUESTION).text == answer, 10)
    assert time.monotonic() - begun < 10
    said = alive.log[mark:]
    assert said.count("can't be reached: it is left out") == 1
    assert "Traceback" not in said
    assert len(said.splitlines()) < 10


def test_a_signal_closes_the_device_and_tells_the_clients(ring: Ring) -> None:
    """And while the node comes back, its peer's clients get an answer or a sentence."""
    nodes, answer = ring
    closed, running = nodes[0].closed(), in_flight(nodes, nodes[0])
    mark = len(nodes[0].log)
    nodes[0].send(signal.SIGTERM)
    assert nodes[0].gone(6) is not None
    assert nodes[0].closed() == closed + 1
    assert all(told(each.get(), "this node was stopped") for each in running)
    assert f"/{PACKAGE}/" not in nodes[0].log[mark:]  # no traceback of this plugin's
    nodes[0].start()
    until = time.monotonic() + 12
    while time.monotonic() < until:
        reply = ask(nodes[1].api, QUESTION, True, seconds=30)
        assert reply.text == answer or told(reply), reply
        assert reply.seconds < 6
        time.sleep(0.2)


def test_a_node_that_joins_waits_for_the_answer_in_flight(ring: Ring) -> None:
    nodes, answer = ring
    closed = nodes[0].closed()
    nodes[0].send(signal.SIGINT)
    assert nodes[0].gone() is not None
    assert nodes[0].closed() == closed + 1
    assert wait(lambda: ask(nodes[1].api, QUESTION).text == answer, 10)
    nodes[0].start()
    nodes[1].play(seconds=0.09)
    running = Later(nodes[1].api, QUESTION)
    assert running.get().text == answer
