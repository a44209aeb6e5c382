"""What exo gets wrong for plugins: the patches as such, its tokenizers, and its end."""

import asyncio
import importlib
import json
import os
import shutil
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from driver import full_shard
from patched import FAULTS, SECONDS, AnswersNever, Client, Heard, fresh, reply, text, until
from plugin import ENGINE_CLASS, PACKAGE
from ring import Peer, Server, make_ring, model_shard
from toy import ToyAnswers, ToyBackend, write_tokenizer

from exo_kit.kit.hosts.exo_0_0.patches import PATCHES
from exo_kit.kit.hosts.exo_0_0.patches import shutdown as shutdown_patches
from exo_kit.kit.hosts.exo_0_0.patches.output import Output, outlive_the_reader
from exo_kit.kit.text.tokenizer import TokenizerError
from exo_kit.models import MODELS


@pytest.fixture
def main_module(monkeypatch):
    """exo's main module as far as its end goes: importing the real one starts a node."""
    helpers = importlib.import_module("exo.helpers")
    made = ModuleType("exo.main")
    stopped = []

    async def shutdown(signal, loop, server):
        if isinstance(server, Server):  # a patch that looks has another one
            stopped.append(server)

    made.shutdown = shutdown if hasattr(helpers, "shutdown") else None
    made.stopped = stopped
    monkeypatch.setitem(sys.modules, "exo.main", made)
    for name in ("CLOSE", "TELL", "CLIENT"):  # a busy machine needs more than a node's end has
        monkeypatch.setattr(shutdown_patches, f"{name}_SECONDS", SECONDS)
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


async def test_a_signal_ends_the_answers_that_only_pass_by(main_module, ring, model_id):
    """Of a whole model the first node holds no request, but its next token is lost with it."""
    nodes = ring(AnswersNever, 2)
    heard = Heard(nodes[1])
    shard = model_shard(nodes[0].inference_engine, model_id)
    await nodes[0].process_prompt(shard, "abc", "request", {})
    await until(lambda: heard.ids)
    await main_module.shutdown("SIGTERM", asyncio.get_running_loop(), Server(nodes[0]))
    assert "this node was stopped" in text(nodes[1], await heard.whole())


async def test_a_node_that_stops_takes_no_new_request(main_module, api):
    made, nodes = api(ToyBackend)
    await main_module.shutdown("SIGTERM", asyncio.get_running_loop(), Server(nodes[0]))
    response = await made.handle_post_chat_completions(Client(False))
    assert response.status == 503
    assert "this node was stopped" in response.body["detail"]


async def test_a_node_that_stops_waits_until_its_clients_have_the_sentence(main_module, api):
    """A device that hangs: each client has its answer before exo ends all tasks."""
    made, nodes = api(AnswersNever)
    next_ids = made._next

    async def late(request_id):
        ids, finished = await next_ids(request_id)
        if finished:  # a loop that is busy: later than WRITE_SECONDS
            await asyncio.sleep(0.15)
        return ids, finished

    made._next = late
    clients = [Client(stream) for stream in (True, False)]
    calls = [asyncio.ensure_future(made.handle_post_chat_completions(c)) for c in clients]
    engine = nodes[0].inference_engine.engine
    await until(lambda: len(engine.requests) == 2 and clients[0].written)
    await main_module.shutdown("SIGTERM", asyncio.get_running_loop(), Server(nodes[0]))
    assert [call.done() for call in calls] == [True, True]
    assert "this node was stopped" in reply(calls[0].result())[0]
    assert calls[1].result().status == 503


async def test_without_the_patch_no_device_is_closed(main_module, ring, model_id, without):
    without("close_at_the_end")
    [node] = ring(ToyBackend)
    engine = node.inference_engine
    await engine.ensure_shard(full_shard(engine, model_id))
    await main_module.shutdown("SIGTERM", asyncio.get_running_loop(), Server(node))
    assert engine.engine.executor.instance.closed == 0


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
    shutil.copy(write_tokenizer("org/a-toy") / "tokenizer.json", folder)
    return folder


async def test_requests_share_a_tokenizer_until_its_files_change(load_tokenizer, downloaded, use):
    use(ToyBackend)
    load = load_tokenizer.module._resolve_tokenizer
    first = await load(downloaded)
    assert await load(str(downloaded)) is first
    os.utime(downloaded / "tokenizer.json", (1, 1))
    assert await load(downloaded) is not first
    assert len(load_tokenizer.loads) == 2


async def test_a_tokenizer_without_bounds_is_never_loaded_by_exo(load_tokenizer, downloaded, use):
    """exo drops the first error, and asks the hub for the same then."""
    use(ToyBackend)
    path, load = downloaded / "tokenizer.json", load_tokenizer.module._resolve_tokenizer
    good, step = path.read_text(), {"type": "ByteLevel"}
    steps = {"type": "Sequence", "normalizers": [step] * 26}
    path.write_text(json.dumps(json.loads(good) | {"normalizer": steps}))
    for place in (downloaded, downloaded.name.replace("--", "/")):
        with pytest.raises(TokenizerError, match="bytes out of one"):
            await load(place)
    assert not load_tokenizer.loads
    path.write_text(good)
    assert await load(downloaded)


async def test_without_the_patch_each_request_loads_its_tokenizer(
    load_tokenizer, downloaded, use, without
):
    without("keep_the_tokenizer")
    use(ToyBackend)
    load = load_tokenizer.module._resolve_tokenizer
    assert await load(downloaded) is not await load(downloaded)


async def test_tokenizers_of_other_models_are_left_to_exo(load_tokenizer, tmp_path, use):
    use(ToyBackend)
    load = load_tokenizer.module._resolve_tokenizer
    for place in (tmp_path, "another/model"):
        assert await load(place) is not await load(place)


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


def test_every_patch_says_what_it_is_about():
    assert len(FAULTS) == len(PATCHES) >= 9
    for name, each in FAULTS.items():
        assert each.wrap.__doc__, name
        assert "\n" not in each.wrap.__doc__.strip(), name


def test_peers_are_what_exo_takes_for_some(ring):
    nodes = ring(ToyBackend, 2)
    assert isinstance(nodes[0].peers[0], Peer)


class Pipe:
    """A stream whose reader goes away."""

    def __init__(self, file):
        self.file, self.closed = file, False

    def write(self, text):
        if self.closed:
            raise BrokenPipeError(32, "Broken pipe")
        return len(text)

    flush = fileno = lambda self: self.file.fileno()


def test_what_exo_prints_to_nobody_is_no_error(tmp_path):
    with (tmp_path / "output").open("w") as file:
        pipe = Pipe(file)
        stream = Output(pipe)
        print("a", file=stream)
        pipe.closed = True
        print("b", file=stream, flush=True)
        os.write(file.fileno(), b"goes nowhere")
    assert (tmp_path / "output").read_text() == ""


def test_a_pipes_end_is_outlived_and_a_file_left_alone(monkeypatch, tmp_path):
    reader, writer = os.pipe()
    with open(writer, "w", buffering=1) as pipe, (tmp_path / "file").open("w") as file:
        monkeypatch.setattr(sys, "stdout", pipe)
        monkeypatch.setattr(sys, "stderr", file)
        outlive_the_reader()
        assert sys.stderr is file
        os.close(reader)
        print("nobody reads this")
        print("nor this", flush=True)
