"""What exo gets wrong for plugins: red without the mend, and a mended exo is left alone."""

import asyncio
import importlib
import importlib.util
import os
import sys
import threading
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from driver import full_shard, split
from plugin import ENGINE_CLASS, ENGINE_NAME, PACKAGE
from prometheus_client import REGISTRY
from ring import Peer, Server, make_ring, model_shard
from toy import END, VOCABULARY, ToyAnswers, ToyBackend, write_tokenizer

from exo_kit.kit.hosts.exo_0_0 import engine as fork
from exo_kit.kit.hosts.exo_0_0.patches import api as fork_client
from exo_kit.kit.hosts.exo_0_0.patches import patch as fork_mends
from exo_kit.kit.hosts.exo_0_0.patches import ring as fork_peers
from exo_kit.models import MODELS

assert fork.ExoEngine  # it brings all mends

FAULTS = {each.wrap.__name__: each for each in fork_mends.PATCHES}


@pytest.fixture(autouse=True)
def fixes(monkeypatch):
    """The mends are on, whatever the environment says."""
    monkeypatch.delenv("EXO_PLUGIN_HOST_FIXES", raising=False)


@pytest.fixture
def node_module(monkeypatch):
    """exo's node, imported afresh, so that no earlier mend is in it."""
    return fresh(monkeypatch, "exo.orchestration.node")


@pytest.fixture
def api_module(monkeypatch):
    """exo's API, imported afresh."""
    return fresh(monkeypatch, "exo.api.chatgpt_api")


def fresh(monkeypatch, name):
    if importlib.util.find_spec(name.rpartition(".")[0]) is None:
        pytest.skip(f"this exo has no {name}")
    monkeypatch.delitem(sys.modules, name, raising=False)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"this exo's {name} can't be imported here: {error}")


@pytest.fixture
def without(monkeypatch):
    """Function `without(name)`: one mend is taken out."""

    def take_out(name):
        left = [each for each in fork_mends.PATCHES if each is not FAULTS[name]]
        monkeypatch.setattr(fork_mends, "PATCHES", left)

    return take_out


@pytest.fixture
def ring(node_module, use, downloader, model_id):
    """Function `ring(backend, size)`: nodes that know each other."""

    def make(backend, size=1, most=100):
        engines = [use(backend) for _ in range(size)]
        return make_ring(node_module, engines, downloader, most)

    return make


class FailsLater(ToyBackend):
    """Answers once, then the device is gone."""

    def step(self, request_id, x):
        if request_id in self.live:
            raise OSError("the device went away")
        return super().step(request_id, x)


class NotANumber(ToyBackend):
    """Answers once, then gives NaN."""

    def step(self, request_id, x):
        known = request_id in self.live and self.layers.ends
        return super().step(request_id, x) * (np.nan if known else 1.0)


class EndsNever(ToyBackend):
    """Says "a" for ever, and slowly, as a device does."""

    def step(self, request_id, x):
        threading.Event().wait(0.001)
        output = super().step(request_id, x)
        if self.layers.ends:
            output[:] = 0
            output[..., VOCABULARY.index("a")] = 1
        return output


async def until(condition):
    """Wait for what tasks and threads do."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a thread may do it
            await asyncio.sleep(0.001)


def live(node):
    """Which requests a node's device holds."""
    device = node.inference_engine.engine.executor.instance
    return device.live if device is not None else set()


def count(outcome, cause=""):
    labels = {"outcome": outcome, "cause": cause}
    return REGISTRY.get_sample_value(f"{PACKAGE}_requests_total", labels) or 0


class Heard:
    """What the listeners of one node hear of an answer."""

    def __init__(self, node):
        self.ids, self.done, self.events = [], asyncio.Event(), 0
        node.on_token.register(f"test {id(self)}").on_next(self.hear)

    def hear(self, request_id, tokens, finished):
        self.events += 1
        self.ids.extend(tokens)
        if finished:
            self.done.set()

    async def whole(self):
        async with asyncio.timeout(5):
            await self.done.wait()
        return self.ids


async def answer_of(node, shard, prompt="abc"):
    """All ids of an answer, up to the event that says it is finished."""
    heard = Heard(node)
    await node.process_prompt(shard, prompt, "request", {})
    return await heard.whole()


def text(node, ids):
    return node.inference_engine.tokenizer.decode(ids)


# An engine and its node.


async def test_a_peer_that_joins_does_not_replace_the_engine(node_module, ring, monkeypatch):
    monkeypatch.setattr(node_module, "get_inference_engine", lambda *_: "swapped")
    [node] = ring(ToyBackend)
    engine = node.inference_engine
    await node.select_best_inference_engine()
    assert node.inference_engine is engine


@pytest.mark.parametrize("off", ["keep_the_engine", "all"])
async def test_without_the_mend_exo_swaps_the_engine(node_module, ring, monkeypatch, without, off):
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


async def test_without_the_mend_no_engine_hears_of_the_end(ring, model_id, without):
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


async def test_without_the_mend_a_later_error_is_dropped(ring, model_id, without):
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

    async def mended(self, base_shard, tensor, request_id=None, inference_state=None):
        result = await faulty(self, base_shard, tensor, request_id, inference_state)
        if result is None:
            self.buffered_token_output[request_id] = ([END], True)
            self.trigger_on_token_callbacks(request_id, [END], True)
        return result

    monkeypatch.setattr(node_module.Node, "_process_tensor", mended)
    [node] = ring(FailsLater)
    assert node_module.Node._process_tensor is mended
    ids = await answer_of(node, full_shard(node.inference_engine, model_id))
    assert ids == [4, END]


async def test_hidden_states_for_other_layers_come_back_to_their_sender(ring, model_id):
    """The second node has restarted, and believes that it is alone."""
    nodes = ring(ToyBackend, 2)
    nodes[1].topology, nodes[1].peers = ["node1"], []
    ids = await answer_of(nodes[0], model_shard(nodes[0].inference_engine, model_id))
    assert "but was asked for" in text(nodes[0], ids)
    await until(lambda: not live(nodes[0]))


# A cluster.


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
    nodes[0].discovery.found[0].down = False
    await nodes[0].update_peers()
    assert [peer.id() for peer in nodes[0].peers] == ["node1"]


async def test_without_the_mend_a_node_that_is_gone_leaves_the_client_waiting(
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
    nodes[0].discovery.found = []
    assert await nodes[0].update_peers()
    assert "a node joined or left the cluster" in text(nodes[0], await heard.whole())
    await until(lambda: not any(live(node) for node in nodes))


async def test_without_the_mend_a_changed_cluster_ends_nothing(ring, model_id, without):
    without("end_orphans")
    nodes = ring(ToyBackend, 2)
    shard = split(full_shard(nodes[0].inference_engine, model_id))[0]
    await nodes[0].inference_engine.infer_prompt("request", shard, "abc")
    heard = Heard(nodes[0])
    nodes[0].discovery.found = []
    assert await nodes[0].update_peers()
    assert not heard.done.is_set()


async def test_a_node_that_joins_waits_for_the_answers_in_flight(ring, model_id):
    [node, other] = ring(ToyBackend, 2)
    node.peers, node.topology = [], ["node0"]
    newcomer, node.discovery.found = node.discovery.found, []
    engine = node.inference_engine
    await engine.infer_prompt("request", full_shard(engine, model_id), "abc")
    node.discovery.found = newcomer
    assert not await node.update_peers()
    assert node.peers == []
    engine.engine.requests.finish("request")
    assert await node.update_peers()
    assert [peer.id() for peer in node.peers] == [other.id]


async def test_a_node_that_joins_does_not_wait_for_ever(ring, model_id, monkeypatch):
    monkeypatch.setenv(f"{fork_peers.settings.PREFIX}JOIN_SECONDS", "0.01")
    [node, _] = ring(ToyBackend, 2)
    node.peers, node.topology = [], ["node0"]
    engine = node.inference_engine
    await engine.infer_prompt("request", full_shard(engine, model_id), "abc")
    heard = Heard(node)
    await node.update_peers()
    await asyncio.sleep(0.02)
    assert await node.update_peers()
    assert "a node joined or left" in text(node, await heard.whole())


async def test_whole_models_go_on_when_the_cluster_changes(ring, model_id):
    nodes = ring(ToyAnswers, 2)
    await nodes[1].inference_engine.infer_prompt(
        "request", full_shard(nodes[1].inference_engine, model_id), "abc"
    )
    nodes[1].discovery.found = []
    assert await nodes[1].update_peers()
    assert list(nodes[1].inference_engine.engine.requests) == ["request"]


# A client.


class Client:
    """A request to exo's API; `leave()` closes its connection."""

    def __init__(self, stream, prompt="abc", model=None):
        model = model or next(iter(MODELS))
        messages = [{"role": "user", "content": prompt}]
        self.body = {"model": model, "stream": stream, "messages": messages}
        self.closed = False
        self.transport = SimpleNamespace(is_closing=lambda: self.closed)
        self.written = []

    async def json(self):
        return self.body

    def write(self, event):
        self.written.append(event)


@pytest.fixture
def api(ring, api_module, model_id):
    """Function `api(backend, size)`: an API on the first node of a ring; the stand-in's alone."""
    if not hasattr(api_module, "Response"):
        pytest.skip("exo's own API needs a web server: it is asked over HTTP elsewhere")

    def make(backend, size=1, most=100):
        nodes = ring(backend, size, most)
        tokenizer = api_tokenizer(model_id)
        return api_module.ChatGPTAPI(nodes[0], ENGINE_CLASS, tokenizer), nodes

    return make


def api_tokenizer(model_id):
    module = importlib.import_module(f"{PACKAGE}.kit.text.tokenizer")
    folder = write_tokenizer(MODELS[model_id]["repo"][ENGINE_CLASS])
    return module.Tokenizer.from_folder(folder)


def said(response):
    """Text and finish reason of what a client got."""
    if response.events:
        choices = [event["choices"][0] for event in response.events]
        return "".join(c["delta"]["content"] for c in choices), choices[-1]["finish_reason"]
    choice = response.body["choices"][0]
    return choice["message"]["content"], choice["finish_reason"]


@pytest.mark.parametrize("stream", [True, False])
async def test_the_closing_mark_is_not_shown(api, stream):
    made, _ = api(ToyBackend)
    response = await made.handle_post_chat_completions(Client(stream, "xyz"))
    assert said(response) == (" <stop>", "stop")
    if not stream:
        assert response.body["usage"] == {"prompt_tokens": 3, "completion_tokens": 3}


@pytest.mark.parametrize("stream", [True, False])
async def test_an_eos_id_of_zero_is_a_stop(api, model_id, stream):
    made, _ = api(ToyBackend)
    write_tokenizer(MODELS[model_id]["repo"][ENGINE_CLASS], 0, also=(END,))
    made.tokenizer = SimpleNamespace(
        decode=made.tokenizer.decode, encode=made.tokenizer.encode, eos_token_id=0
    )
    response = await made.handle_post_chat_completions(Client(stream, "xyz"))
    assert said(response) == (" <stop>", "stop")


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_a_servers_limit_ended_ends_by_length(api, stream):
    class Cut(ToyAnswers):
        async def answer(self, request):
            yield self.piece(ids=(1, 2))
            yield self.piece(finish="length")

    made, _ = api(Cut, 2)
    response = await made.handle_post_chat_completions(Client(stream, "xyz"))
    assert said(response) == ("ab", "length")


async def test_without_the_mend_the_closing_mark_is_shown(api, without):
    without("whole_text")
    made, _ = api(ToyBackend)
    response = await made.handle_post_chat_completions(Client(True, "xyz"))
    assert said(response) == (" <stop><end>", "stop")


def byte_tokenizer():
    """A token a byte, and one that ends: characters of several tokens."""

    def decode(ids, **_):
        return bytes(i for i in ids if i < 256).decode("utf-8", "replace") + "<end>" * (256 in ids)

    return SimpleNamespace(decode=decode, encode=lambda text: list(text.encode()), eos_token_id=256)


@pytest.mark.parametrize("words", ["\u65e5\u672c\u8a9e", "\U0001f642 ok", "\u0928\u092e\u0938"])
def test_streams_have_whole_characters(api_module, use, words):
    use(ToyBackend)
    tokenizer, ids = byte_tokenizer(), [*words.encode(), 256]
    chat = SimpleNamespace(model=next(iter(MODELS)))
    pieces = []
    for n, token in enumerate(ids):
        finish = "stop" if n == len(ids) - 1 else None
        made = api_module.generate_completion(
            chat, tokenizer, "", "streams", [token], True, finish, "chat.completion"
        )
        pieces.append(made["choices"][0]["delta"]["content"])
    assert "".join(pieces) == words
    assert not any("\ufffd" in piece for piece in pieces)


def test_other_engines_models_are_left_to_exo(api_module, use):
    use(ToyBackend)
    chat = SimpleNamespace(model="llama-3.2-1b")
    made = api_module.generate_completion(
        chat, byte_tokenizer(), "", "r", [256], False, "stop", "chat.completion"
    )
    assert made["choices"][0]["message"]["content"] == "<end>"


def test_an_exo_that_shows_whole_text_is_left_alone(api_module, use, monkeypatch):
    state = {}

    def mended(chat, tokenizer, prompt, request_id, tokens, stream, finish, kind):
        ids = state.setdefault(request_id, [])
        before = tokenizer.decode(ids).rstrip("\ufffd")
        ids.extend(i for i in tokens if i != tokenizer.eos_token_id)
        new = tokenizer.decode(ids).rstrip("\ufffd")[len(before) :]
        return {"choices": [{"delta": {"content": new}, "finish_reason": finish}]}

    monkeypatch.setattr(api_module, "generate_completion", mended)
    use(ToyBackend)
    assert api_module.generate_completion is mended


class FailsFirst(ToyBackend):
    """The last layers' device is gone."""

    def step(self, request_id, x):
        if self.layers.ends:
            raise OSError("the device went away")
        return super().step(request_id, x)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("size", [1, 2])
async def test_a_first_step_that_fails_is_an_http_error(api, stream, size):
    made, _ = api(FailsFirst, size)
    response = await made.handle_post_chat_completions(Client(stream))
    assert response.status == 500
    assert "the device went away" in response.body["detail"]


async def test_without_the_mend_such_a_failure_of_another_node_is_an_answer(api, without):
    without("first_token_or_error")
    made, _ = api(FailsFirst, 2)
    response = await made.handle_post_chat_completions(Client(True))
    assert response.status == 200


async def test_a_node_that_is_gone_is_http_503(api):
    made, nodes = api(ToyBackend, 2)
    nodes[0].peers[0].down = True
    response = await made.handle_post_chat_completions(Client(False))
    assert response.status == 503
    assert "a node of the cluster went away" in response.body["detail"]


@pytest.mark.parametrize("size", [1, 2])
async def test_a_stream_that_fails_ends_with_the_sentence(api, size):
    made, _ = api(FailsLater, size)
    response = await made.handle_post_chat_completions(Client(True))
    shown, finish = said(response)
    assert shown.startswith("d\n[")
    assert shown.endswith(": the device went away]")
    assert finish == "length"


async def test_an_answer_that_fails_whole_is_an_http_error(api):
    made, _ = api(FailsLater)
    response = await made.handle_post_chat_completions(Client(False))
    assert response.status == 500
    assert "the device went away" in response.body["detail"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("size", [1, 2])
async def test_a_client_that_goes_away_ends_its_answer_everywhere(api, monkeypatch, stream, size):
    monkeypatch.setattr(fork_client, "LOOK_SECONDS", 0.001)
    made, nodes = api(EndsNever, size, 10_000)
    cancelled, client = count("cancelled"), Client(stream)
    asked = asyncio.ensure_future(made.handle_post_chat_completions(client))
    await until(lambda: all(live(node) for node in nodes))
    client.closed = True
    await until(lambda: count("cancelled") == cancelled + size)
    await until(lambda: not any(live(node) for node in nodes))
    await asyncio.wait_for(asked, 5)
    steps = len(nodes[0].inference_engine.engine.executor.instance.threads)
    await asyncio.sleep(0.02)
    assert len(nodes[0].inference_engine.engine.executor.instance.threads) <= steps + 1


async def test_without_the_mend_the_answer_of_a_client_that_is_gone_runs_on(
    api, monkeypatch, without
):
    without("notice_clients")
    made, nodes = api(EndsNever, most=10_000)
    client = Client(True)
    asked = asyncio.ensure_future(made.handle_post_chat_completions(client))
    await until(lambda: live(nodes[0]))
    client.closed = True
    asked.cancel()
    await asyncio.sleep(0.05)
    assert live(nodes[0])


async def test_a_client_that_breaks_off_is_cancelled_too(api):
    made, nodes = api(EndsNever, most=10_000)
    cancelled, client = count("cancelled"), Client(True)

    def write(event):
        raise ConnectionResetError("cannot write to closing transport")

    client.write = write
    await made.handle_post_chat_completions(client)
    assert count("cancelled") == cancelled + 1
    await until(lambda: not live(nodes[0]))


# The end.


@pytest.fixture
def main_module(monkeypatch):
    """exo's main module as far as its end goes: importing the real one starts a node."""
    helpers = importlib.import_module("exo.helpers")
    made = ModuleType("exo.main")
    stopped = []

    async def shutdown(signal, loop, server):
        stopped.append(server)

    made.shutdown = shutdown if hasattr(helpers, "shutdown") else None
    made.stopped = stopped
    monkeypatch.setitem(sys.modules, "exo.main", made)
    return made


@pytest.mark.parametrize("backend", [ToyBackend, ToyAnswers])
async def test_a_signal_ends_the_answers_and_closes_the_device(
    main_module, ring, model_id, backend
):
    [node] = ring(backend)
    engine = node.inference_engine
    heard = Heard(node)
    await engine.infer_prompt("request", full_shard(engine, model_id), "abc")
    device, server = engine.engine.executor.instance, Server(node)
    await main_module.shutdown("SIGTERM", asyncio.get_running_loop(), server)
    assert "this node was stopped" in text(node, await heard.whole())
    assert device.closed == 1
    assert main_module.stopped == [server]


async def test_without_the_mend_no_device_is_closed(main_module, ring, model_id, without):
    without("close_at_the_end")
    [node] = ring(ToyBackend)
    engine = node.inference_engine
    await engine.ensure_shard(full_shard(engine, model_id))
    await main_module.shutdown("SIGTERM", asyncio.get_running_loop(), Server(node))
    assert engine.engine.executor.instance.closed == 0


# A tokenizer for each request.


@pytest.fixture
def load_tokenizer(monkeypatch):
    """exo's function that loads one, counted; `load_tokenizer.loads` has what it was asked for."""
    module = fresh(monkeypatch, "exo.inference.tokenizers")
    loads = []

    async def original(repo_id_or_local_path):
        loads.append(repo_id_or_local_path)
        return object()

    monkeypatch.setattr(module, "_resolve_tokenizer", original)
    return SimpleNamespace(module=module, loads=loads)


@pytest.fixture
def downloaded(model_id, tmp_path):
    """The folder of this plugin's model, with its tokenizer."""
    folder = tmp_path / MODELS[model_id]["repo"][ENGINE_CLASS].replace("/", "--")
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    return folder


async def test_requests_share_a_tokenizer_until_its_files_change(load_tokenizer, downloaded, use):
    use(ToyBackend)
    load = load_tokenizer.module._resolve_tokenizer
    first = await load(downloaded)
    assert await load(str(downloaded)) is first
    os.utime(downloaded / "tokenizer.json", (1, 1))
    assert await load(downloaded) is not first
    assert len(load_tokenizer.loads) == 2


async def test_without_the_mend_each_request_loads_its_tokenizer(
    load_tokenizer, downloaded, use, without
):
    without("keep_the_tokenizer")
    use(ToyBackend)
    load = load_tokenizer.module._resolve_tokenizer
    assert await load(downloaded) is not await load(downloaded)


async def test_tokenizers_of_other_models_are_left_to_exo(load_tokenizer, tmp_path, use):
    use(ToyBackend)
    load = load_tokenizer.module._resolve_tokenizer
    for asked in (tmp_path, "another/model"):
        assert await load(asked) is not await load(asked)


# All of them.


def test_two_plugins_wrap_each_other_harmlessly(node_module, use):
    use(ToyBackend)
    ours = node_module.Node.update_peers
    assert ours.patched_by == (PACKAGE,)

    async def theirs(self, *args):
        return await ours(self, *args)

    theirs.patched_by = (*ours.patched_by, "exo_other")
    node_module.Node.update_peers = theirs
    use(ToyBackend)
    assert node_module.Node.update_peers is theirs


async def test_another_plugins_node_is_left_alone(node_module, use, downloader):
    use(ToyBackend)
    [node] = make_ring(node_module, [SimpleNamespace(name="another's")], downloader)
    assert not hasattr(node.inference_engine, "state")
    with pytest.raises(AttributeError):
        await node._process_tensor(None, np.zeros((1, 1)), "r")


def test_every_mend_says_what_it_is_about():
    assert len(FAULTS) == len(fork_mends.PATCHES) >= 9
    for name, each in FAULTS.items():
        assert each.wrap.__doc__, name
        assert "\n" not in each.wrap.__doc__.strip(), name


def test_peers_are_what_exo_takes_for_some(ring):
    nodes = ring(ToyBackend, 2)
    assert isinstance(nodes[0].peers[0], Peer)
