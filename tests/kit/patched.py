"""Nodes of exo around toys, as the tests of the patches have them: fixtures and helpers."""

import asyncio
import importlib
import importlib.util
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from plugin import ENGINE_CLASS, PACKAGE
from prometheus_client import REGISTRY
from ring import make_ring
from toy import VOCABULARY, ToyAnswers, ToyBackend, write_tokenizer

from exo_kit.kit.hosts.exo_0_0.patches import PATCHES
from exo_kit.kit.hosts.exo_0_0.patches import patch as patch_module
from exo_kit.models import MODELS

SECONDS = 30.0  # until a wait has failed; a busy machine needs more than a calm one
FAULTS = {each.wrap.__name__: each for each in PATCHES}


@pytest.fixture
def fixes(monkeypatch):
    """The patches are on, whatever the environment says."""
    monkeypatch.delenv("EXO_PLUGIN_HOST_FIXES", raising=False)


@pytest.fixture
def node_module(monkeypatch, fixes):
    """exo's node, imported afresh, so that no earlier patch is in it."""
    return fresh(monkeypatch, "exo.orchestration.node")


@pytest.fixture
def api_module(monkeypatch, fixes):
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
    """Function `without(name)`: one patch is taken out."""

    def take_out(name):
        left = [each for each in PATCHES if each is not FAULTS[name]]
        monkeypatch.setattr(patch_module, "PATCHES", left)

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


class AnswersNever(ToyAnswers):
    """Gives one id, and works on the next for ever."""

    async def answer(self, request):
        yield self.piece(ids=(1,))
        await asyncio.Event().wait()


async def until(condition):
    """Wait for what tasks and threads do."""
    async with asyncio.timeout(SECONDS):
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
        async with asyncio.timeout(SECONDS):
            await self.done.wait()
        return self.ids


async def answer_of(node, shard, prompt="abc"):
    """All ids of an answer, up to the event that says it is finished."""
    heard = Heard(node)
    await node.process_prompt(shard, prompt, "request", {})
    return await heard.whole()


def text(node, ids):
    return node.inference_engine.tokenizer.decode(ids)


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

    def make(backend, size=1, most=100, hook=None):
        nodes = ring(backend, size, most)
        tokenizer = api_tokenizer(model_id)
        before = (lambda request_id, *_: hook(request_id)) if hook else None
        api = api_module.ChatGPTAPI(
            nodes[0], ENGINE_CLASS, tokenizer, on_chat_completion_request=before
        )
        return api, nodes

    return make


def api_tokenizer(model_id):
    module = importlib.import_module(f"{PACKAGE}.kit.text.tokenizer")
    folder = write_tokenizer(MODELS[model_id]["repo"][ENGINE_CLASS])
    return module.Tokenizer.from_folder(folder)


def reply(response):
    """Text and finish reason of what a client got."""
    if response.events:
        choices = [event["choices"][0] for event in response.events]
        return "".join(c["delta"]["content"] for c in choices), choices[-1]["finish_reason"]
    choice = response.body["choices"][0]
    return choice["message"]["content"], choice["finish_reason"]
