"""Requests that go away, come at once or are cut: what is left at the server for the next."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest
from hosting import Host, nobody_is_connected, within
from running import until

from exo_kit.kit.contract import RequestError
from exo_kit.kit.rkllm import dialects
from exo_kit.kit.rkllm import server as server_module
from exo_kit.kit.rkllm.answer import Answer
from exo_kit.kit.rkllm.server import Stream
from exo_kit.kit.server.client import ServerError


async def test_what_a_limit_leaves_at_the_server_does_not_open_the_next_answer(host, server):
    await host.load()
    server.script([f"{i} " for i in range(100)])
    await within(30, host.ended("a", most=5))
    server.script(["fine"])
    assert await within(30, host.answer("b")) == "fine"
    assert server.loads == 1  # a load takes a minute there


async def test_two_requests_at_once_take_turns(host, server, kind):
    await host.load()
    server.tokens_per_second = 500
    server.script([f"a{i} " for i in range(20)])
    server.script([f"b{i} " for i in range(20)])
    first, second = await within(30, asyncio.gather(host.answer("a"), host.answer("b")))
    assert {first, second} == {
        "".join(f"a{i} " for i in range(20)),
        "".join(f"b{i} " for i in range(20)),
    }
    assert server.max_concurrent == 1


@pytest.mark.parametrize("drain", ["0.01", "15"])
async def test_a_client_that_goes_away_leaves_nothing_to_the_next(
    host, server, kind, monkeypatch, drain
):
    monkeypatch.setenv("RKLLM_DRAIN_SECONDS", drain)
    await host.load()
    server.tokens_per_second = 500
    server.script([f"old{i} " for i in range(20)])
    await within(30, host.begin_and_leave("gone"))
    server.script(["new"])
    assert await within(30, host.answer("next")) == "new"
    assert server.max_concurrent == 1


async def test_a_request_that_goes_away_before_its_turn_asks_nothing(host, server):
    await host.load()
    server.tokens_per_second = 2
    server.script([f"a{i} " for i in range(60)])
    first = asyncio.ensure_future(host.answer("a"))
    await until(lambda: server.chat_requests)
    waiting = asyncio.ensure_future(host.answer("b"))
    await until(lambda: host.backend._turn._waiters)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    server.tokens_per_second = None
    await within(30, first)
    assert await within(30, host.answer("c")) == "Hello there, this is the NPU."
    assert len(server.chat_requests) == 2


async def test_an_evicted_request_says_why_and_gives_way(host, server, monkeypatch):
    monkeypatch.setenv("RKLLM_DRAIN_SECONDS", "0.02")
    await host.load()
    server.tokens_per_second = 50
    server.script([f"old{i} " for i in range(3000)])  # a minute
    old = asyncio.ensure_future(host.answer("old"))
    await until(lambda: server.chat_requests)
    host.engine.requests.evict("old", "it was in the way")
    server.script(["new"])
    assert await within(30, host.answer("next")) == "new"
    with pytest.raises(RequestError, match="it was in the way"):
        await within(30, old)


async def test_a_cancel_while_an_answer_is_being_cut_gives_the_turn_to_the_next(host, server):
    closing = asyncio.Event()

    async def chunks():
        try:
            await asyncio.Event().wait()
            yield
        finally:
            closing.set()
            await asyncio.sleep(0)

    await host.load()
    backend = host.backend
    settings = replace(backend._settings, drain_seconds=0.0)
    await backend._turn.acquire()
    stream = Stream(Answer(limit=3, most=5), chunks())
    drain = asyncio.create_task(backend._drained(backend._server, settings, stream))
    await within(30, closing.wait())
    drain.cancel()
    with pytest.raises(asyncio.CancelledError):
        await drain
    assert await within(30, host.answer("next")) == "Hello there, this is the NPU."


async def test_closing_cuts_answers_that_are_still_drained(host, server):
    await host.load()
    server.tokens_per_second = 20
    server.script(["word "] * 1200)  # a minute
    await within(30, host.begin_and_leave("gone"))
    before = asyncio.all_tasks()
    await within(30, host.engine.close())
    assert len(asyncio.all_tasks()) < len(before)
    await nobody_is_connected(server)


async def test_a_server_that_hangs_after_a_cut_answer_is_told_soon(host, server, monkeypatch):
    await host.load()
    for holder, name in ((host.backend, "_settings"), (host.backend._client, "settings")):
        short = replace(getattr(holder, name), connect_seconds=0.2, silence_seconds=0.2)
        monkeypatch.setattr(holder, name, short)
    server.fault, server.hanging = "silence", {"/models", "/unload_model", "/load_model"}
    for name in ("a", "b"):
        with pytest.raises(ServerError, match="silent"):
            await within(30, host.answer(name))


async def test_closing_waits_for_nothing_that_hangs(host, server, kind):
    await host.load()
    server.fault, server.hanging = "silence", {"/unload_model"}
    with suppress(TimeoutError):
        await within(0.1, host.answer("a"))
    await within(30, host.engine.close())


async def test_closing_lets_an_answer_end_that_has_reached_its_limit(host, server, monkeypatch):
    monkeypatch.setattr(server_module, "CLOSE_SECONDS", 30.0)
    await host.load()
    server.tokens_per_second = 50
    server.script([f"{i} " for i in range(100)])
    await within(30, host.ended("a", most=3))
    await host.engine.close()
    assert server.loaded == server.models  # a cut would have cost the next client a load
    assert not server._dead


async def test_an_answer_cut_at_the_end_is_no_harm_to_the_next_client(device, server, kind):
    for answer in (["old "] * 200, ["new"]):
        server.tokens_per_second = 500
        client = Host(device)
        await client.load()
        server.script(answer)
        assert await within(30, client.begin_and_leave("a")) == answer[0]
        await within(30, client.engine.close())


async def test_what_a_killed_client_left_is_no_harm_to_the_next(
    device, host, server, kind, monkeypatch
):
    monkeypatch.setattr(dialects, "ALIVE_SECONDS", 0.1)
    await host.load()
    server.script([f"old{i} " for i in range(20)])
    server.tokens_per_second = 500
    await within(30, host.begin_and_leave("a"))
    async with asyncio.timeout(30):
        while not host.backend._drains:  # noqa: ASYNC110 - a round or two of the loop
            await asyncio.sleep(0)
    for drain in host.backend._drains:  # the end of its process cuts the connection
        drain.cancel()
    await nobody_is_connected(server)
    following = Host(device)
    await within(30, following.load())
    server.script(["new"])
    assert await within(30, following.answer("b")) == "new"
    await following.engine.close()


async def test_another_model_cuts_an_answer_with_a_sentence(host, server, monkeypatch):
    await host.load()
    monkeypatch.setattr(host.engine, "_drain", 0.05)
    server.tokens_per_second = 50
    server.script(["word "] * 3000)  # a minute
    left = asyncio.ensure_future(host.answer("a"))
    await until(lambda: server.chat_requests)
    await within(30, host.load("another"))
    with pytest.raises(RequestError, match="another was loaded"):
        await within(30, left)


async def test_many_requests_that_are_left(host, server):
    await host.load()
    for i in range(50):
        server.script(["one ", "two"])
        await within(30, host.begin_and_leave(f"r{i}"))
    assert await within(30, host.answer("last"))
    assert len(host.engine.requests) == 0
    assert len(host.backend._drains) == 0
    assert len(asyncio.all_tasks()) <= 5
    assert server.open_connections <= 1
