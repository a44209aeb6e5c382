"""What a server may do wrong, and what is asked of the backend then: a sentence, and no leaks."""

import asyncio
import logging
import time
from dataclasses import replace

import pytest
from hosting import Host, nobody_is_connected, within
from raw_server import RawServer, http, serving
from running import until
from serving import IDS, KINDS, SETTINGS

from exo_kit.backend import Backend
from exo_kit.kit.contract import LoadError, RequestError
from exo_kit.kit.engine.engine import Engine
from exo_kit.kit.openai import probe
from exo_kit.kit.server.client import ServerError

SECRET = "sk-only-for-this-server"
ANSWER = "Hello there, this is the server."


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("cut", "broke the connection off"),
        ("reset", None),
        ("no_final", "stopped without its last event"),
        ("error_body", "broke the answer off: out of memory"),
        ("error_event", "broke the answer off: broken"),
        ("page", "sent no stream of events, but: Log in"),
        ("empty", "longer than their context: send fewer"),
        ("long_line", "more than 1048576 bytes"),
    ],
)
async def test_a_fault_is_a_sentence_or_the_whole_answer(host, server, kind, fault, words):
    await host.load()
    server.fault = fault
    if words is None or (fault == "no_final" and kind in IDS):  # the EOS says that it is whole
        assert await within(30, host.answer("a")) == ANSWER
    else:
        with pytest.raises(ServerError, match=words):
            await within(30, host.answer("a"))
    assert await within(30, host.answer("b")) == ANSWER


@pytest.mark.parametrize("fault", ["comments", "split"])
async def test_what_servers_put_between_events_is_passed_over(host, server, kind, fault):
    await host.load()
    server.fault = fault
    server.script("\u65e5\u672c\u8a9e \U0001f600")
    assert await within(30, host.answer("a")) == "\u65e5\u672c\u8a9e \U0001f600"


async def test_silence_is_an_error(host, server, kind, monkeypatch):
    await host.load()
    for holder in (host.backend._connection, host.backend._client):
        monkeypatch.setattr(holder, "settings", replace(holder.settings, silence_seconds=0.1))
    server.fault = "silence"
    with pytest.raises(ServerError, match="silent"):
        await within(30, host.answer("a"))


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_server_is_asked_again_when_it_says(host, server, status):
    await host.load()
    server.refusals = [(status, "0"), (status, "1"), (status, "")]
    begun = time.monotonic()
    assert await within(30, host.answer("a")) == ANSWER
    assert 1 <= time.monotonic() - begun < 30
    assert len(server.answered) == 4


@pytest.mark.parametrize(
    ("status", "after", "words"),
    [
        (429, "3600", "stayed busy"),
        (503, "3600", "overloaded"),
        (401, "", "about the key, and none is set: see .*API_KEY"),
        (404, "", "Set .*MODEL"),
        (422, "", "KIND=openai"),
        (500, "", "answered 500: come again"),
    ],
)
async def test_each_refusal_says_what_to_do_and_is_not_waited_for(
    host, server, status, after, words
):
    await host.load()
    server.refusals = [(status, after)] * 2  # after the first, it is asked without stream_options
    with pytest.raises((ServerError, RequestError), match=words):
        await within(30, host.answer("a"))
    server.refusals = []
    assert await within(30, host.answer("b")) == ANSWER


async def test_a_server_that_loads_its_model_is_waited_for(host, server, monkeypatch):
    monkeypatch.setattr(probe, "LOOK_SECONDS", 0.01)
    server.loading = 6
    await within(30, host.load())
    assert await within(30, host.answer("a")) == ANSWER


async def test_but_not_for_ever(host, server, monkeypatch):
    monkeypatch.setattr(probe, "LOOK_SECONDS", 0.01)
    monkeypatch.setenv(f"{SETTINGS}LOAD_SECONDS", "0.1")
    server.loading = 10_000
    with pytest.raises(LoadError, match=r"Loading model.*LOAD_SECONDS"):
        await within(30, host.load())


async def test_a_server_of_no_known_kind_is_told_by_its_answers(host, server):
    server.kind = "unknown"
    with pytest.raises(LoadError, match=r"no OpenAI-compatible server: /v1/models answered 404"):
        await within(30, host.load())


async def test_no_server_and_no_such_model_are_said(host, server):
    server.models = ["Something-Else-9B"]
    with pytest.raises(LoadError, match=r"Something-Else-9B.*MODEL"):
        await within(30, host.load())
    server.stop()
    with pytest.raises(LoadError, match=rf"no server at {server.url}.*URL"):
        await within(30, host.load())


async def test_eight_requests_at_once_are_at_the_server_side_by_side(host, server, kind):
    await host.load()
    server.tokens_per_second = 2
    server.default_answer = ["abcdefghijklmnopqrstuvwxyz" * 3]  # 39 s
    answers = asyncio.gather(*(host.answer(f"r{i}") for i in range(8)))
    await until(lambda: server.max_concurrent == 8)
    server.tokens_per_second = None
    await within(30, answers)


async def test_who_goes_away_is_told_to_the_server_at_once(host, server, kind):
    await host.load()
    server.tokens_per_second, server.default_answer = 20, ["abcdefgh" * 150]  # a minute
    assert await within(30, host.begin_and_leave("gone"))
    await until(lambda: server.cuts)
    await nobody_is_connected(server)


async def test_who_goes_away_before_the_first_token_is_told_too(host, server):
    await host.load()
    server.hanging = {"/v1/completions"}
    asking = asyncio.ensure_future(host.answer("gone"))
    await until(lambda: server.open_connections)
    asking.cancel()
    await nobody_is_connected(server)


async def test_who_goes_away_while_the_server_is_busy_asks_no_more(host, server):
    await host.load()
    server.refusals = [(429, "1")] * 50
    asking = asyncio.ensure_future(host.answer("gone"))
    await until(lambda: server.answered)
    await asyncio.sleep(0.05)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: len(asyncio.all_tasks()) == 1)
    assert len(host.engine.requests) == 0


async def test_nothing_is_left_of_many_requests_of_which_a_third_is_cut(host, server):
    await host.load()
    for i in range(0, 150, 25):
        work = []
        for n in range(i, i + 25):
            work.append(host.begin_and_leave(f"r{n}") if n % 3 == 0 else host.answer(f"r{n}"))
        await within(30, asyncio.gather(*work))
    await nobody_is_connected(server)
    assert len(host.engine.requests) == 0
    await until(lambda: len(asyncio.all_tasks()) == 1)
    connector = host.engine.executor.instance._client._session.connector
    assert len(connector._acquired) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_goes_to_the_server_and_nowhere_else(
    device, server, monkeypatch, caplog, tmp_path, kind
):
    server.key, server.kind = SECRET, kind
    (tmp_path / "key").write_text(f"{SECRET}\n")
    monkeypatch.setenv(f"{SETTINGS}API_KEY_FILE", str(tmp_path / "key"))
    mine, outcomes = Host(device), list[str]()
    with caplog.at_level(logging.DEBUG):
        await mine.load()
        assert await within(30, mine.answer("a")) == ANSWER
        outcomes.append(await Engine(Backend).executor.check())
        assert "key accepted" in outcomes[0]
        server.fault = "error_event"  # says the key
        with pytest.raises(ServerError, match="broken \u2026") as caught:
            await within(30, mine.answer("b"))
        outcomes.append(str(caught.value))
        server.key = "another"
        with pytest.raises(ServerError, match=r"API_KEY") as caught:
            await within(30, mine.answer("c"))
        outcomes.append(str(caught.value))
    backend = mine.engine.executor.instance
    outcomes += [
        repr(backend._connection.settings),
        repr(backend._client),
        str(vars(backend)),
        caplog.text,
    ]
    assert not any(SECRET in text for text in outcomes)
    assert set(server.keys) == {f"Bearer {SECRET}"}
    await mine.engine.close()


async def test_a_refused_key_is_a_sentence_of_its_own(host, server, monkeypatch):
    server.key = SECRET
    monkeypatch.setenv(f"{SETTINGS}API_KEY", "sk-wrong")
    with pytest.raises(LoadError, match=r"answered 401: .* It is about the key: see") as caught:
        await within(30, host.load())
    assert "sk-wrong" not in str(caught.value)


async def test_a_redirect_to_another_host_gets_no_key(host, server, monkeypatch):
    other = RawServer(http(b"{}"))
    async with serving(other):
        raw = RawServer(http(b"", "307 Temporary Redirect", f"Location: {other.url}/y"))
        async with serving(raw):
            monkeypatch.setenv(f"{SETTINGS}URL", raw.url)
            monkeypatch.setenv(f"{SETTINGS}API_KEY", SECRET)
            with pytest.raises(LoadError, match="a redirect to") as caught:
                await within(30, host.load())
    assert not other.heard
    assert SECRET not in str(caught.value)


async def test_a_key_that_is_renewed_in_its_file_is_read_again(
    device, server, monkeypatch, tmp_path
):
    server.key, key = "sk-old", tmp_path / "key"
    key.write_text("sk-old")
    monkeypatch.setenv(f"{SETTINGS}API_KEY_FILE", str(key))
    mine = Host(device)
    await mine.load()
    server.key = "sk-new"
    with pytest.raises(ServerError, match="API_KEY_FILE"):
        await within(30, mine.answer("a"))
    key.write_text("sk-new")
    assert await within(30, mine.answer("b")) == ANSWER
    await mine.engine.close()


@pytest.mark.parametrize(
    ("before", "after"),
    [("llama.cpp", "vllm"), ("vllm", "chat"), ("vllm", "tensorrt-llm"), ("sglang", "llama.cpp")],
)
async def test_another_kind_of_server_at_the_address_is_asked_what_it_is(
    host, server, before, after
):
    server.kind = before
    await host.load()
    assert await within(30, host.answer("a")) == ANSWER
    server.kind = after
    both = await within(30, asyncio.gather(host.answer("b"), host.answer("c")))
    assert both == [ANSWER, ANSWER]
    name = {"chat": "openai"}.get(after, after)
    assert host.engine.executor.instance._connection.server.name == name


async def test_a_server_that_stays_what_it_was_is_not_asked_for_ever(host, server):
    await host.load()
    server.refusals = [(404, "")] * 50
    for n in range(10):
        with pytest.raises(ServerError, match=r"Set .*MODEL"):
            await within(30, host.answer(f"r{n}"))
    assert len(server.answered) == 10
