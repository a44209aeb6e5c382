"""Which server it is, and what it is asked."""

import asyncio
import json
from contextlib import aclosing, asynccontextmanager

import pytest

from exo_kit.kit.contract import Sampling
from exo_kit.kit.rkllm.dialect import ServerRequest
from exo_kit.kit.rkllm.dialects import alternating
from exo_kit.kit.rkllm.probe import probe
from exo_kit.kit.rkllm.settings import Settings
from exo_kit.kit.server.address import Address
from exo_kit.kit.server.client import Client, ServerError


@asynccontextmanager
async def probed(url, **settings):
    """The dialect of a server."""
    made = Settings(Address.parse(url), **settings)
    client = Client(made)
    try:
        yield await probe(client, made)
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("kind", "name"),
    [("rkllama", "rkllama"), ("legacy", "legacy rkllama"), ("openai", "openai")],
)
async def test_the_kind_is_found_out(server, kind, name):
    server.kind = kind
    async with probed(server.url) as dialect:
        assert dialect.name == name
        assert await dialect.models() == server.models


async def test_a_setting_overrides_the_probe(server):
    server.kind = "unknown"
    async with probed(server.url, kind="openai") as dialect:
        assert dialect.name == "openai"


async def test_an_unknown_server_is_told_by_what_each_probe_answered(server):
    server.kind = "unknown"
    with pytest.raises(ServerError, match=r"/api/version answered 404.*RKLLM_SERVER_KIND"):
        async with probed(server.url):
            pass


async def test_a_path_that_hangs_does_not_hide_the_others(server, monkeypatch):
    """By a clock that goes on once the others have answered."""
    server.kind, server.hanging = "openai", {"/", "/current_model"}
    loop, get, answered = asyncio.get_running_loop(), Client.get, set()
    clock = loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + (100 if len(answered) == 2 else 0))

    async def noted(self, path):
        reply = await get(self, path)
        answered.add(path)
        return reply

    monkeypatch.setattr(Client, "get", noted)
    async with probed(server.url, connect_seconds=30) as dialect:
        assert dialect.name == "openai"
    assert answered == {"/api/version", "/v1/models"}


async def test_no_error_shows_the_password(server):
    server.kind = "unknown"
    url = server.url.replace("http://", "http://me:secret@")
    with pytest.raises(ServerError, match="is no server that this plugin knows") as caught:
        async with probed(url):
            pass
    assert "secret" not in str(caught.value)
    server.stop()
    with pytest.raises(ServerError, match=r"no server at http://127.*RKLLM_SERVER_URL") as caught:
        async with probed(url):
            pass
    assert "secret" not in str(caught.value)


async def test_html_is_told_as_text(server):
    server.fault = "load_500_html"
    async with probed(server.url) as dialect:
        with pytest.raises(ServerError, match=r"answered 500: .*Internal Server Error Broken\."):
            await dialect.load(server.models[0])


async def test_legacy_unloads_another_model_first(server):
    server.kind, server.models, server.loaded = "legacy", ["a", "b"], ["a"]
    async with probed(server.url) as dialect:
        await dialect.load("b")
        await dialect.load("b")
    assert server.loaded == ["b"]
    assert server.loads == 1


SAMPLING = [
    ("rkllama", 0.0, {"num_predict": 9, "temperature": 0.0, "top_p": 0.9, "top_k": 1}),
    ("rkllama", 0.7, {"num_predict": 9, "temperature": 0.7, "top_p": 0.9}),
    ("openai", 0.7, {"max_tokens": 9, "temperature": 0.7, "top_p": 0.9}),
]


@pytest.mark.parametrize(("kind", "temperature", "temperature_sent"), SAMPLING)
async def test_limit_and_sampling_reach_the_server(server, kind, temperature, temperature_sent):
    server.kind = kind
    messages = [{"role": "user", "content": "Hi"}]
    async with probed(server.url) as dialect:
        sampling = Sampling(temperature, 0.9)
        request = ServerRequest(server.models[0], messages, 9, sampling)
        async with aclosing(dialect.stream(request)) as chunks:
            assert "".join([c.text async for c in chunks]) == "Hello there, this is the NPU."
    sent = server.chat_requests[-1]
    assert temperature_sent.items() <= (sent.get("options") or sent).items()
    assert sent["messages"] == messages


TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
CALL = {"name": "weather", "arguments": {"city": "S\u00e3o"}}


async def test_rkllama_is_sent_tools_and_its_calls_are_read(server, monkeypatch):
    """It gives a call as Ollama does: the arguments are an object, and there is no id."""
    earlier = {"id": "call_1", "type": "function", "function": CALL | {"arguments": '{"n": 1}'}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [earlier]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    calls = [{"message": {"content": "", "tool_calls": [{"function": CALL}]}, "done": False}]
    plain = server.stream

    async def stream(request, kind, events, last, fault=""):
        return await plain(request, kind, [json.dumps(calls[0]).encode() + b"\n"], last, fault)

    monkeypatch.setattr(server, "stream", stream)
    async with probed(server.url) as dialect:
        request = ServerRequest(server.models[0], messages, 9, tools=TOOLS)
        async with aclosing(dialect.stream(request)) as chunks:
            first, last = [chunk async for chunk in chunks]
    [call] = first.calls
    assert (call.name, json.loads(call.arguments)) == ("weather", CALL["arguments"])
    assert call.id.startswith("call_"), "rkllama gives none"
    assert last.final
    sent = server.chat_requests[-1]
    assert sent["tools"] == TOOLS
    [said_call] = sent["messages"][1]["tool_calls"]
    assert said_call["function"]["arguments"] == {"n": 1}
    assert sent["messages"][2] == {"role": "tool", "content": "sunny"}


def conversation(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


def test_legacy_gets_alternating_roles_and_loses_nothing():
    messages = conversation(
        ("system", "S"), ("user", "a"), ("user", "b"), ("assistant", "c"), ("user", "d")
    )
    assert alternating(messages) == conversation(
        ("user", "S\n\na\n\nb"), ("assistant", "c"), ("user", "d")
    )
    assert messages[1]["content"] == "a"
    assert alternating(conversation(("system", "S"), ("assistant", "c"))) == conversation(
        ("user", "S"), ("assistant", "c")
    )
