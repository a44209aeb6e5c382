"""Answers and failures of the backend, against a server that plays all of them."""

import json
from contextlib import aclosing
from dataclasses import replace

import pytest
from hosting import within

from exo_kit.kit.contract import LoadError, RequestError
from exo_kit.kit.rkllm import dialects
from exo_kit.kit.rkllm.answer import Answer
from exo_kit.kit.rkllm.dialect import Chunk
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
    await host.load()
    short = replace(host.backend._settings, silence_seconds=0.05)
    monkeypatch.setattr(host.backend, "_settings", short)
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
