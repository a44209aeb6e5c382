"""Answers and failures of the backend, against a server that plays all of them."""

import asyncio
import json
from contextlib import aclosing, suppress
from dataclasses import replace

import pytest
from hosting import Host, nobody_is_connected, within
from running import until

from exo_kit.kit.contract import LoadError, RequestError
from exo_kit.kit.rkllm import dialects
from exo_kit.kit.rkllm import server as server_module
from exo_kit.kit.rkllm.answer import Answer
from exo_kit.kit.rkllm.dialect import Chunk
from exo_kit.kit.rkllm.server import Stream
from exo_kit.kit.server.client import ServerError


async def test_the_answer_comes_as_the_server_makes_it(host, server, kind):
    await host.load()
    server.tokens_per_second = 5
    server.script(["one ", *["more "] * 300])  # a minute
    assert await within(30, host.begin_and_leave("a")) == "one "


async def test_the_hosts_limit_and_sampling_reach_the_server(host, server):
    await host.load()
    await within(30, host.answer("a", most=100, temperature=0.7, top_p=0.9))
    options = server.chat_requests[-1]["options"]
    assert 100 < options["num_predict"] < 110
    assert (options["temperature"], options["top_p"]) == (0.7, 0.9)


async def test_the_hosts_limit_ends_an_answer_whole(host, server, kind):
    await host.load()
    server.script([f"{i} " for i in range(100)])
    text, finish = await within(30, host.ended("a", most=5))
    assert (text, finish) == ("0 1 2 3 4 ", "length")
    server.script(["fine"])
    assert await within(30, host.answer("b", most=5)) == "fine"


@pytest.mark.parametrize(
    ("count", "finish", "ran_out"), [(2, "stop", False), (3, "length", False), (5, "length", True)]
)
def test_the_servers_count_tells_the_end_where_a_character_is_several_tokens(
    count, finish, ran_out
):
    answer = Answer(limit=3, most=5)
    pieces = answer.feed(Chunk("\u4f60")) + answer.feed(Chunk("a"))
    pieces += [*answer.feed(Chunk(final=True, count=count)), answer.end(dialects.Rkllama)]
    assert "".join(piece.text for piece in pieces) == "\u4f60a"
    assert (pieces[-1].finish, answer.ran_out) == (finish, ran_out)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("empty", "empty"),
        ("task_error", "RKLLM_TASK_ERROR"),
        ("timeout_sentence", "gave up"),
        ("pad", "PAD"),
        ("no_final", "last event"),
        ("cut", "broke"),
    ],
)
async def test_a_failure_is_an_error_never_an_answer(host, server, fault, words):
    await host.load()
    server.fault = fault
    with pytest.raises(ServerError, match=words):
        await within(30, host.answer("a"))
    server.script(["fine"])
    assert await within(30, host.answer("b")) == "fine"


async def test_a_count_of_0_is_no_count(host, server):
    await host.load()
    server.fault = "zero_counts"
    server.script(["Hello ", "there."])
    assert await within(30, host.answer("a")) == "Hello there."


async def test_what_only_looks_like_padding_is_an_answer(host, server):
    await host.load()
    for pieces in (["[PAD", "1] is", " a token"], [" ", "[", "x]"], ["[PADDING"]):
        server.script(pieces)
        assert await within(30, host.answer("".join(pieces))) == "".join(pieces)


async def test_silence_in_the_middle_is_an_error(host, server, kind, monkeypatch):
    monkeypatch.setenv("RKLLM_SILENCE_SECONDS", "0.05")
    await host.load()
    server.fault = "silence"
    with pytest.raises(ServerError, match="silent"):
        await within(30, host.answer("a"))


@pytest.mark.parametrize("fault", ["load_refused", "load_500_html"])
async def test_a_refused_load_says_why(host, server, fault):
    server.fault = fault
    with pytest.raises(LoadError, match=r"answered (400|500): (Unexpected|500 Internal)"):
        await within(30, host.load())


async def test_a_server_of_no_known_kind(host, server):
    server.kind = "unknown"
    with pytest.raises(LoadError, match="no server that this plugin knows"):
        await within(30, host.load())


async def test_the_first_answer_after_a_load_that_found_the_model_there_is_whole(
    device, host, server
):
    server.loaded, server.left = list(server.models), ["left by another client"]
    await host.load()
    server.script(["Héllo"])
    assert await within(30, host.answer("a")) == "Héllo"
    assert server.loads == 0


async def test_a_model_that_answers_the_short_question_without_an_end_is_loaded_anew(host, server):
    server.loaded, server.talks_on = list(server.models), True
    await host.load()
    assert server.loads == 1
    assert await within(30, host.answer("a")) == "Hello there, this is the NPU."


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


@pytest.mark.parametrize("played", ["rkllama", "openai"])
async def test_the_servers_own_counts_are_the_usage(host, server, played):
    server.kind = played
    await host.load()
    server.script(["one ", "two ", "three"])
    async with aclosing(host.pieces("a")) as pieces:
        usage = [piece async for piece in pieces][-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (21, 3)


@pytest.mark.parametrize("kind", ["legacy", "openai"])
async def test_tools_that_a_server_may_not_read_are_refused(host, server, kind):
    server.kind = kind
    await host.load()
    with pytest.raises(RequestError, match=rf"{kind}.*is sent no tools"):
        await within(30, host.answer("a", tools=[{"type": "function"}]))


async def test_tools_that_the_template_drops_are_refused(host, server, exo_home):
    [config] = exo_home.glob("downloads/*/tokenizer_config.json")
    settings = json.loads(config.read_text())
    settings["chat_template"] = settings["chat_template"].replace("tools", "nothing")
    config.write_text(json.dumps(settings))
    await host.load()
    with pytest.raises(RequestError, match="chat template takes no tools"):
        await within(30, host.answer("a", tools=[{"type": "function"}]))


async def test_another_clients_text_is_noticed_and_the_server_watched(host, server, caplog):
    await host.load()
    server.left = ["stranger's ", "words ", "here "]  # a client was killed in its answer
    with pytest.raises(ServerError, match="others are of another client's answer"):
        await within(30, host.answer("a"))
    assert "asked a short question before each answer" in caplog.text
    for name in ("b", "c"):
        server.script(["mine ", "alone"])
        server.left = ["stranger's ", "words "]
        assert await within(30, host.answer(name)) == "mine alone"
