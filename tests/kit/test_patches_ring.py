"""Patches of exo's ring: answers end in words when a node is gone, joins or leaves."""

import asyncio
import threading

import pytest
from driver import full_shard
from exo_order import split
from patched import AnswersNever, EndsNever, Heard, answer_of, count, live, text, until
from ring import model_shard
from toy import ToyAnswers, ToyBackend

from exo_kit.kit.hosts.exo_0_0.node_state import AnswerError
from exo_kit.kit.hosts.exo_0_0.patches import ring as ring_patches
from exo_kit.kit.text.tokenizer import Tokenizer, TokenizerError


async def test_a_node_that_is_gone_ends_the_answer_and_leaves_the_ring(ring, model_id, caplog):
    nodes = ring(ToyBackend, 2)
    shard = model_shard(nodes[0].inference_engine, model_id)
    assert text(nodes[0], await answer_of(nodes[0], shard, "xyz")) == " <stop><end>"
    nodes[0].peers[0].down = True
    heard = Heard(nodes[0])
    await nodes[0].process_prompt(shard, "abc", "second", {})
    assert "a node of the cluster went away" in text(nodes[0], await heard.whole())
    await until(lambda: not nodes[0].peers)
    heard = Heard(nodes[0])
    await nodes[0].process_prompt(shard, "xyz", "third", {})
    assert text(nodes[0], await heard.whole()) == " <stop><end>"
    assert caplog.text.count("can't be reached: it is left out") == 1
    nodes[0].discovery.others[0].down = False
    await nodes[0].update_peers()
    assert [peer.id() for peer in nodes[0].peers] == ["node1"]


async def test_without_the_patch_a_node_that_is_gone_leaves_the_client_waiting(
    ring, model_id, without
):
    without("end_cut_answers")
    nodes = ring(ToyBackend, 2)
    nodes[0].peers[0].down = True
    heard = Heard(nodes[0])
    shard = model_shard(nodes[0].inference_engine, model_id)
    await nodes[0].process_prompt(shard, "abc", "request", {})
    await asyncio.sleep(0.01)
    assert not heard.done.is_set()


async def test_a_node_that_leaves_ends_the_answers_in_flight(ring, model_id):
    nodes = ring(EndsNever, 2, most=10_000)
    heard = Heard(nodes[0])
    shard = model_shard(nodes[0].inference_engine, model_id)
    await nodes[0].process_prompt(shard, "abc", "request", {})
    nodes[0].discovery.others = []
    assert await nodes[0].update_peers()
    assert "a node joined or left the cluster" in text(nodes[0], await heard.whole())
    await until(lambda: not any(live(node) for node in nodes))


async def test_without_the_patch_a_changed_cluster_ends_nothing(ring, model_id, without):
    without("end_orphans")
    nodes = ring(ToyBackend, 2)
    shard = split(full_shard(nodes[0].inference_engine, model_id))[0]
    await nodes[0].inference_engine.infer_prompt("request", shard, "abc")
    heard = Heard(nodes[0])
    nodes[0].discovery.others = []
    assert await nodes[0].update_peers()
    assert not heard.done.is_set()


async def test_a_node_that_joins_waits_for_the_answers_in_flight(ring, model_id):
    [node, other] = ring(ToyBackend, 2)
    node.peers, node.topology = [], ["node0"]
    newcomer, node.discovery.others = node.discovery.others, []
    engine = node.inference_engine
    await engine.infer_prompt("request", full_shard(engine, model_id), "abc")
    node.discovery.others = newcomer
    assert not await node.update_peers()
    assert node.peers == []
    engine.engine.requests.finish("request")
    assert await node.update_peers()
    assert [peer.id() for peer in node.peers] == [other.id]


async def test_a_node_that_joins_does_not_wait_for_ever(ring, model_id, monkeypatch):
    monkeypatch.setenv(f"{ring_patches.settings.PREFIX}JOIN_SECONDS", "0.01")
    [node, _] = ring(ToyBackend, 2)
    node.peers, node.topology = [], ["node0"]
    engine = node.inference_engine
    await engine.infer_prompt("request", full_shard(engine, model_id), "abc")
    heard = Heard(node)
    await node.update_peers()
    await asyncio.sleep(0.02)
    assert await node.update_peers()
    assert "a node joined or left" in text(node, await heard.whole())


async def test_whole_models_end_too_when_the_cluster_changes(ring, model_id):
    nodes = ring(ToyAnswers, 2)
    await nodes[1].inference_engine.infer_prompt(
        "request", full_shard(nodes[1].inference_engine, model_id), "abc"
    )
    heard = Heard(nodes[1])
    nodes[1].discovery.others = []
    assert await nodes[1].update_peers()
    assert "a node joined or left the cluster" in text(nodes[1], await heard.whole())
    assert list(nodes[1].inference_engine.engine.requests) == []


class Slow(EndsNever):
    """A step takes longer than a test."""

    def step(self, request_id, x):
        if x.shape[1] == 1:
            threading.Event().wait(0.05)
        return super().step(request_id, x)


async def begun(nodes, model_id):
    """An answer whose first token is there, and what the first node hears of it."""
    heard = Heard(nodes[0])
    shard = model_shard(nodes[0].inference_engine, model_id)
    await nodes[0].process_prompt(shard, "abc", "request", {})
    await until(lambda: heard.ids)
    return heard


@pytest.mark.parametrize("backend", [AnswersNever, Slow])
async def test_a_step_whose_sender_dies_ends_the_answer_in_words(ring, model_id, backend):
    """gRPC cancels a call with its connection: a CancelledError passes `except Exception`."""
    nodes = ring(backend, 2, most=10_000)
    failed, calls, process = count("failed", "cluster"), [], nodes[1].process_tensor

    async def called(*arguments, **named):
        calls.append(asyncio.current_task())  # it has begun: cancelling is seen in it
        await process(*arguments, **named)

    async def process_tensor(*arguments, **named):
        await asyncio.ensure_future(called(*arguments, **named))

    nodes[1].process_tensor = process_tensor
    heard = await begun(nodes, model_id)
    await until(lambda: any(not call.done() for call in calls[1:]))
    calls[-1].cancel()
    assert "a node of the cluster went away" in text(nodes[0], await heard.whole())
    assert count("failed", "cluster") == failed + (1 if backend is AnswersNever else 2)


@pytest.mark.parametrize("backend", [AnswersNever, EndsNever])
@pytest.mark.parametrize("dead", [0, 1])
async def test_a_node_that_is_gone_ends_what_passed_by_it(ring, model_id, backend, dead):
    """Whoever had the token last: nobody else would ask for the next."""
    nodes = ring(backend, 3, most=10_000)
    gone, alive = nodes[dead], nodes[2]
    await begun(nodes, model_id)
    heard = Heard(alive)
    for node in nodes:
        for peer in node.peers:
            peer.down = peer.down or peer.node is gone
    [peer] = [peer for peer in alive.peers if peer.id() == gone.id]
    await ring_patches.lose(alive.inference_engine.state, peer)
    assert "a node of the cluster went away" in text(alive, await heard.whole())


async def test_a_node_that_dies_before_its_last_ids_has_ended_the_answer(ring, model_id):
    """It says why, and is gone: what it has ended, nobody else would end for the client."""
    nodes = ring(AnswersNever, 2)
    heard = await begun(nodes, model_id)

    async def never(*_):
        await asyncio.Event().wait()

    nodes[1].broadcast_result = never
    state = nodes[1].inference_engine.state
    ending = asyncio.ensure_future(state.end("request", AnswerError("exo_kit: stopped", lost=True)))
    assert "exo_kit: stopped" in text(nodes[0], await heard.whole())
    ending.cancel()


@pytest.mark.parametrize("backend", [ToyAnswers, ToyBackend])
async def test_a_prompt_for_other_layers_is_refused(ring, model_id, backend):
    """A node that has restarted believes that it is alone: its tokens would reach nobody."""
    nodes = ring(backend, 2)
    nodes[0].topology, nodes[0].peers = ["node0"], []
    shard = split(full_shard(nodes[0].inference_engine, model_id))[0]
    with pytest.raises(AnswerError, match="but was asked for"):
        await nodes[0].process_prompt(shard, "abc", "request", {})


@pytest.mark.parametrize("how", ["finished", "cancelled", "failed"])
async def test_whole_models_are_counted_by_the_node_that_answers(ring, model_id, how):
    nodes = ring(ToyAnswers if how == "finished" else AnswersNever, 3, most=5)
    before = {
        name: count(name) + count(name, "cluster") for name in ("finished", "cancelled", "failed")
    }
    heard = await begun(nodes, model_id)
    state = nodes[0].inference_engine.state
    if how == "cancelled":
        await state.end("request", AnswerError("its client went away", cancelled=True))
    if how == "failed":
        await state.end("request", AnswerError("gone", lost=True))
    await heard.whole()
    await until(lambda: not any(len(n.inference_engine.engine.requests) for n in nodes))
    assert counted() == before | {how: before[how] + 1}


def counted():
    """How many requests of this process ended how."""
    outcomes = ("finished", "cancelled", "failed")
    return {name: count(name) + count(name, "cluster") for name in outcomes}


async def test_a_node_that_is_back_hears_which_answers_ended_without_it(ring, model_id):
    """It was stopped, not ended: it would hold their state for as long as nobody needs the room."""
    nodes = ring(EndsNever, 2, most=10_000)
    gone, alive = nodes
    held, frozen = gone.inference_engine.engine.requests, asyncio.Event()

    async def process_tensor(*_, **__):
        frozen.set()
        await asyncio.Event().wait()

    await begun(nodes, model_id)
    gone.process_tensor = process_tensor
    await asyncio.wait_for(frozen.wait(), 30)
    [peer] = alive.peers
    peer.down = gone.peers[0].down = True
    await ring_patches.lose(alive.inference_engine.state, peer)
    await until(lambda: not live(alive))
    assert "request" in held
    peer.down = False
    await alive.update_peers()
    await until(lambda: "request" not in held)


class SaysNothing(ToyAnswers):
    """Works on its first token for ever."""

    async def answer(self, request):
        await asyncio.Event().wait()
        yield self.piece(ids=(1,))


async def test_a_node_that_leaves_before_the_first_token_ends_the_answer(ring, model_id):
    """It is there for others, but no longer for this node: its tokens have no way back."""
    nodes = ring(SaysNothing, 2)
    heard = Heard(nodes[0])
    shard = model_shard(nodes[0].inference_engine, model_id)
    sent = asyncio.ensure_future(nodes[0].process_prompt(shard, "abc", "request", {}))
    await until(lambda: "request" in nodes[1].inference_engine.engine.requests)
    assert not nodes[0].inference_engine.state.in_flight()
    nodes[0].discovery.others = []
    assert await nodes[0].update_peers()
    assert "a node joined or left the cluster" in text(nodes[0], await heard.whole())
    sent.cancel()


async def test_an_end_is_told_where_the_tokenizer_has_no_ids_for_it(ring, model_id, monkeypatch):
    """A stranger's expressions can fail on our sentence; its client would wait for ever."""

    def fails(*_):
        raise TokenizerError("retry-limit-in-match over")

    nodes = ring(EndsNever, 2, most=10_000)
    heard = await begun(nodes, model_id)
    monkeypatch.setattr(Tokenizer, "encode", fails)
    await nodes[0].inference_engine.state.end("request", AnswerError("over", lost=True))
    await heard.whole()
