"""Each kind of server: told apart, spoken to in ids where that means the same, asked rightly."""

import logging

import pytest
from driver import full_shard, generate, text_of
from exo_order import split
from hosting import within
from serving import IDS, MODEL, PROMPT, SETTINGS
from tokenizers import Tokenizer
from tokenizers_for_tests import bos_adding

from exo_kit.kit.contract import LoadError, RequestError

LONG = "Hello 😀🙂 日本語 नमस्ते, x = [1]\n\n\tif  <a> </s>"


def spoken_to(host):
    """How the server is spoken to."""
    return host.backend._connection.mode.kind


def prompt_mode_of(kind):
    return {"openai": "text", "chat": "chat"}.get(kind, "ids")


async def test_ids_where_the_server_gives_them_else_text_else_a_chat(host, server, kind):
    await host.load()
    assert spoken_to(host) == prompt_mode_of(kind)


async def test_prompt_limit_and_sampling_are_sent_as_the_kind_takes_them(host, server, kind):
    await host.load()
    await within(30, host.answer("a", 100, temperature=0.7, top_p=0.9))
    body = server.answered[-1]
    sampling = body.get("sampling_params", body)
    limits = {"sglang": "max_new_tokens", "llama.cpp": "n_predict"}
    assert sampling[limits.get(kind, "max_tokens")] == 100
    assert (sampling["temperature"], sampling["top_p"]) == (0.7, 0.9)
    tokenizer = host.engine.tokenizer
    if kind in ("vllm", "old-vllm", "sglang", "tensorrt-llm"):
        assert sampling["stop_token_ids"] == sorted(tokenizer.eos_token_ids)
    if kind in IDS:
        assert body.get("input_ids", body.get("prompt")) == tokenizer.encode(PROMPT)
    if kind == "openai":
        assert body["prompt"] == PROMPT
    if kind == "chat":
        assert [m["content"] for m in body["messages"]] == ["Be brief.", "Hi"]


@pytest.mark.parametrize("chunk", [1, 3, 50])
async def test_exo_gets_the_servers_text_on_one_node_and_on_two(
    new_engine, device, server, kind, chunk
):
    left, right = new_engine(), new_engine()
    server.chunk, server.default_answer = chunk if kind != "llama.cpp" else 1, [LONG]
    full = full_shard(left, device.model_id)
    alone = await generate([left], [full], device.prompt, 500)
    assert text_of(left, alone) == LONG
    both = await generate([left, right], split(full), device.prompt, 500, request_id="two")
    assert text_of(right, both) == LONG
    if kind in IDS:
        assert alone[:-1] == server.ids(LONG)  # the model's own ids, and none that was spelt


async def test_another_tokenizer_at_the_server_means_text_and_a_warning(
    host, server, tmp_path, caplog
):
    bos_adding(tmp_path / "other")
    server.fast = Tokenizer.from_file(str(tmp_path / "other" / "tokenizer.json"))
    server.eos = "<|eot_id|>"
    with caplog.at_level(logging.WARNING):
        await host.load()
    assert spoken_to(host) == "chat"  # its count of a text's tokens is another too
    assert "the server's tokenizer is not that of the card" in caplog.text


async def test_a_tensorrt_whose_ids_mean_something_else_is_spoken_to_in_text(
    host, server, monkeypatch
):
    server.kind = "tensorrt-llm"
    text_of = server._text_of
    monkeypatch.setattr(server, "_text_of", lambda ids: text_of([i + 1 for i in ids]))
    await host.load()
    assert spoken_to(host) == "text"


@pytest.mark.parametrize(("extra", "prompt_mode"), [(1, "text"), (20, "chat")])
async def test_a_count_of_tokens_tells_a_bos_and_a_template(
    host, server, monkeypatch, extra, prompt_mode
):
    server.kind, ids = "openai", server.ids
    monkeypatch.setattr(server, "ids", lambda text: [0] * extra + ids(text))
    await host.load()
    assert spoken_to(host) == prompt_mode


@pytest.mark.parametrize("prompt_mode", ["ids", "text", "chat"])
async def test_a_setting_says_how_to_speak(host, server, monkeypatch, prompt_mode):
    monkeypatch.setenv(f"{SETTINGS}PROMPT_MODE", prompt_mode)
    await host.load()
    assert spoken_to(host) == prompt_mode


async def test_a_setting_says_which_kind_it_is(host, server, monkeypatch):
    monkeypatch.setenv(f"{SETTINGS}KIND", "openai")
    await host.load()
    assert spoken_to(host) == "text"


async def test_ids_that_a_server_does_not_give_are_no_answer(host, server, monkeypatch):
    monkeypatch.setenv(f"{SETTINGS}PROMPT_MODE", "ids")
    server.kind = "openai"
    with pytest.raises(LoadError, match="PROMPT_MODE is ids, but it gives no ids"):
        await host.load()


async def test_the_limit_is_what_the_context_leaves(host, server, kind):
    await host.load()
    server.script("a" * 200)
    length = len(host.engine.tokenizer.encode(PROMPT))
    instance = host.engine.executor.instance
    known = instance._connection.model.context is not None
    assert known == (kind in ("vllm", "llama.cpp", "sglang"))
    if known:
        server.context = length + 7
        await host.engine.executor.load(host.engine.layers, host.model, None, host.engine.tokenizer)
        assert await within(30, host.ended("a", 100)) == ("a" * 7, "length")
        server.context = length
        await host.engine.executor.load(host.engine.layers, host.model, None, host.engine.tokenizer)
        with pytest.raises(RequestError, match=f"the prompt has {length} tokens"):
            await within(30, host.answer("b"))


async def test_a_context_that_a_refusal_names_is_kept(host, server):
    server.kind = "openai"
    await host.load()
    server.refusals = [(400, "")]
    assert await within(30, host.answer("a", 1000)) == "Hello there, this is the server."
    await within(30, host.answer("b", 1000))
    length = len(host.engine.tokenizer.encode(PROMPT))
    assert [r["max_tokens"] for r in server.answered] == [1000, *[63 - length] * 2]


async def test_a_limit_ends_an_answer_with_length(host, server, kind):
    await host.load()
    server.script("abcdefgh")
    assert await within(30, host.ended("a", 3)) == ("abc", "length")


@pytest.mark.parametrize("fault", ["two_eos", "no_eos"])
async def test_a_doubled_or_missing_end_is_one_end(new_engine, device, server, kind, fault):
    engine, server.fault = new_engine(), fault
    ids = await generate([engine], [full_shard(engine, device.model_id)], device.prompt)
    assert text_of(engine, ids) == device.answer
    assert [i for i in ids if i in engine.tokenizer.eos_token_ids] == [ids[-1]]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_reaches_exo_within_the_models_marks(new_engine, device, server, field):
    engine, server.kind, server.thinks = new_engine(), "chat", "Hm."
    server.thinks_in = field
    shard = full_shard(engine, device.model_id)
    ids = await generate([engine], [shard], device.prompt)
    assert text_of(engine, ids) == f"<think>Hm.</think>{device.answer}"
    server.script("")
    ids = await generate([engine], [shard], device.prompt, request_id="alone")
    assert text_of(engine, ids) == "<think>Hm.</think>"


async def test_a_limit_of_exos_ends_an_answer_behind_a_whole_character(new_engine, device, server):
    engine, server.kind, server.thinks = new_engine(), "chat", "日本"
    shard = full_shard(engine, device.model_id)
    for most in range(8, 16):  # the marks and characters have ids that no server counts
        engine.limits = lambda most=most: (most, 0.0)
        ids = await generate([engine], [shard], device.prompt, most, request_id=f"r{most}")
        text = text_of(engine, ids)
        assert text
        assert f"<think>日本</think>{device.answer}".startswith(text)


async def test_the_server_has_several_models(host, server):
    server.models = ["other", MODEL.repository]
    await host.load()
    await within(30, host.answer("a"))
    assert server.answered[-1]["model"] == MODEL.repository
