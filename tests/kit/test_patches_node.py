"""Patches of exo's node: its engine stays, its errors are said, and its cluster may change."""

import asyncio

import pytest
from driver import full_shard
from patched import FailsLater, Heard, NotANumber, answer_of, count, live, text, until
from plugin import ENGINE_NAME
from ring import model_shard
from toy import END, ToyAnswers, ToyBackend


async def test_a_peer_that_joins_does_not_replace_the_engine(node_module, ring, monkeypatch):
    monkeypatch.setattr(node_module, "get_inference_engine", lambda *_: "swapped")
    [node] = ring(ToyBackend)
    engine = node.inference_engine
    await node.select_best_inference_engine()
    assert node.inference_engine is engine


@pytest.mark.parametrize("off", ["keep_the_engine", "all"])
async def test_without_the_patch_exo_swaps_the_engine(node_module, ring, monkeypatch, without, off):
    monkeypatch.setattr(node_module, "get_inference_engine", lambda *_: "swapped")
    if off == "all":
        monkeypatch.setenv("EXO_PLUGIN_HOST_FIXES", "0")
    else:
        without(off)
    [node] = ring(ToyBackend)
    await node.select_best_inference_engine()
    assert node.inference_engine == "swapped"


async def test_an_exo_that_keeps_plugins_is_left_alone(node_module, ring, monkeypatch):
    monkeypatch.setattr(
        node_module.Node, "get_supported_inference_engines", lambda self: [ENGINE_NAME]
    )
    before = node_module.Node.select_best_inference_engine
    ring(ToyBackend)
    assert node_module.Node.select_best_inference_engine is before


async def test_an_answer_at_its_limit_is_let_go(ring, model_id):
    [node] = ring(ToyBackend, most=3)
    finished = count("finished")
    shard = full_shard(node.inference_engine, model_id)
    assert text(node, await answer_of(node, shard)) == "def"
    await until(lambda: not live(node))
    assert count("finished") == finished + 1


async def test_without_the_patch_no_engine_hears_of_the_end(ring, model_id, without):
    without("know_the_node")
    [node] = ring(ToyBackend, most=3)
    await answer_of(node, full_shard(node.inference_engine, model_id))
    await asyncio.sleep(0.01)
    assert live(node) == {"request"}


async def test_every_node_lets_an_answer_go(ring, model_id):
    nodes = ring(ToyBackend, 2)
    ids = await answer_of(nodes[0], model_shard(nodes[0].inference_engine, model_id), "xyz")
    assert text(nodes[0], ids) == " <stop><end>"
    await until(lambda: not any(live(node) for node in nodes))


async def test_exos_limits_reach_the_backend(ring, model_id):
    [node] = ring(ToyAnswers, most=5)
    node.default_sample_temperature = 0.25
    ids = await answer_of(node, full_shard(node.inference_engine, model_id))
    assert len(ids) == 5
    [request] = node.inference_engine.engine.executor.instance.requests
    assert (request.max_tokens, request.sampling.temperature) == (5, 0.25)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize(
    ("backend", "words"),
    [(FailsLater, "the device went away"), (NotANumber, "the logits hold NaN")],
)
async def test_an_error_at_a_later_step_ends_the_answer(ring, model_id, backend, words, size):
    nodes = ring(backend, size)
    ids = await answer_of(nodes[0], model_shard(nodes[0].inference_engine, model_id))
    assert ids[-1] != END
    assert words in text(nodes[0], ids)
    await until(lambda: not any(live(node) for node in nodes))


async def test_without_the_patch_a_later_error_is_dropped(ring, model_id, without):
    without("raise_later_errors")
    [node] = ring(FailsLater)
    heard = Heard(node)
    await node.process_prompt(full_shard(node.inference_engine, model_id), "abc", "request", {})
    await until(lambda: not live(node))
    await asyncio.sleep(0.01)
    assert not heard.done.is_set()


async def test_an_exo_that_ends_such_an_answer_itself_is_left_alone(
    node_module, ring, model_id, monkeypatch
):
    faulty = node_module.Node._process_tensor

    async def repaired(self, base_shard, tensor, request_id=None, inference_state=None):
        result = await faulty(self, base_shard, tensor, request_id, inference_state)
        if result is None:
            self.buffered_token_output[request_id] = ([END], True)
            self.trigger_on_token_callbacks(request_id, [END], True)
        return result

    monkeypatch.setattr(node_module.Node, "_process_tensor", repaired)
    [node] = ring(FailsLater)
    assert node_module.Node._process_tensor is repaired
    ids = await answer_of(node, full_shard(node.inference_engine, model_id))
    assert ids == [4, END]


async def test_hidden_states_for_other_layers_come_back_to_their_sender(ring, model_id):
    """The second node has restarted, and believes that it is alone."""
    nodes = ring(ToyBackend, 2)
    nodes[1].topology, nodes[1].peers = ["node1"], []
    ids = await answer_of(nodes[0], model_shard(nodes[0].inference_engine, model_id))
    assert "but was asked for" in text(nodes[0], ids)
    await until(lambda: not live(nodes[0]))
