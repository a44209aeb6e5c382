"""The runtime in the process, against a C library that plays each group of its versions."""

import asyncio
import shutil
from pathlib import Path

import pytest
from played_runtime import PROMPT, needs_compiler
from running import until
from serving import MODEL

from exo_kit.backend import Backend
from exo_kit.kit.engine.engine import Engine
from exo_kit.kit.repository.files import find_tokenizer
from exo_kit.kit.rkllm import board
from exo_kit.kit.rkllm.abi import ABIS, VERSIONS, abi_of
from exo_kit.kit.rkllm.backend import which
from exo_kit.kit.rkllm.runtime import version_of
from exo_kit.kit.rkllm.settings import Settings
from exo_kit.models import MODELS

TEXT = "Hello 😀 日本語 नमस्ते 👩‍👩‍👧."


@needs_compiler
async def test_the_answer_is_the_librarys_to_the_letter(client, played, group):
    await client.load(played)
    played.plays(TEXT)
    text, last = await client.whole("a")
    assert (text, last.finish) == (TEXT, "stop")
    prompt = client.engine.tokenizer.encode(PROMPT)
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (
        len(prompt), len(client.engine.tokenizer.encode(TEXT)),
    )  # fmt: skip
    run = played.calls("run")[0].split()
    assert run[1:5] == ["ids", str(len(prompt)), "first", str(prompt[0])]


@needs_compiler
@pytest.mark.parametrize("most", range(1, 12))
async def test_a_limit_ends_an_answer_behind_a_whole_character(client, played, newest, most):
    await client.load(played)
    played.plays(TEXT)
    text, last = await client.whole("a", most=most)
    assert TEXT.startswith(text)
    assert last.finish == "length"


@needs_compiler
async def test_a_length_stop_leaves_nothing_to_the_next_answer(client, played, group):
    await client.load(played)
    played.setenv("DOUBLE_FAULT", "leak")
    played.plays("abcdefgh", "the next", "and one more")
    assert (await client.whole("a", most=3))[0] == "abc"
    other = PROMPT.replace("Hi", "Another question")
    text, last = await client.whole("b", other)
    if group != "110":  # which has no call to clear with
        assert (text, last.finish) == ("the next", "stop")


@needs_compiler
async def test_a_length_stop_leaves_nothing_to_the_next_turn(client, played, group):
    await client.load(played)
    played.setenv("DOUBLE_FAULT", "leak")
    played.plays("abcdefgh", "the next")
    first, _ = await client.whole("a", most=3)
    turn = f"{PROMPT}{first}<|im_end|>\n<|im_start|>user\nMore<|im_end|>\n<|im_start|>assistant\n"
    text, last = await client.whole("b", turn)
    if group != "110":  # which has no call to clear with
        assert (text, last.usage.reused_tokens) == ("the next", 0)


@needs_compiler
async def test_nothing_is_left_of_many_answers_of_which_a_third_is_cut(client, played, newest):
    await client.load(played)
    texts = [f"answer {n} 日本 😀 end" for n in range(150)]
    played.plays(*texts)
    before = len(asyncio.all_tasks())
    for n, text in enumerate(texts):
        if n % 3 == 0:
            assert text.startswith(await client.leave(f"r{n}"))
        else:
            assert (await client.whole(f"r{n}"))[0] == text
    await client.whole("last")
    await until(lambda: len(asyncio.all_tasks()) <= before)
    assert len(client.engine.requests) == 0


@needs_compiler
async def test_a_cancel_aborts_at_once(client, played, group):
    await client.load(played)
    played.setenv("DOUBLE_TOKEN_MS", "200")
    played.plays("a" * 300, "next")  # a minute
    await client.leave("a")
    await until(lambda: played.calls("end"))
    played.setenv("DOUBLE_TOKEN_MS", "0")
    assert len(played.calls("abort")) == 1
    assert (await client.whole("b"))[0] == "next"


@needs_compiler
async def test_the_cache_is_kept_for_the_next_turn_and_cleared_otherwise(client, played, group):
    await client.load(played)
    played.plays("Hello.", "Again.", "Other.")
    first, last = await client.whole("a")
    assert last.usage.reused_tokens == 0
    turn = f"{PROMPT}{first}<|im_end|>\n<|im_start|>user\nMore<|im_end|>\n<|im_start|>assistant\n"
    text, last = await client.whole("b", turn)
    is_current = group in ("121", "130")
    tokenizer = client.engine.tokenizer
    have = len(tokenizer.encode(PROMPT + first)) - 1  # the last token is not computed yet
    assert (text, last.usage.reused_tokens) == ("Again.", have if is_current else 0)
    sent = len(tokenizer.encode(turn)) - (have if is_current else 0)
    assert f"ids {sent} " in played.calls("run")[1]
    assert len(played.calls("clear")) == {"110": 0, "120": 2, "121": 1, "130": 1}[group]
    assert (await client.whole("c", PROMPT.replace("Hi", "Bye")))[0] == "Other."
    assert group == "110" or " cached 0 " in played.calls("run")[2]


@needs_compiler
async def test_limit_and_sampling_are_given_as_the_version_takes_them(
    client, played, group, caplog, monkeypatch
):
    monkeypatch.setenv("RKLLM_CPUS", "0xf0")
    monkeypatch.setenv("RKLLM_CONTEXT", "1024")
    await client.load(played)
    played.plays("one", "two")
    await client.whole("a", most=50, temperature=0.5, top_p=0.8, repetition_penalty=1.25)
    await client.whole("b", most=50, temperature=0.5, seed=7)
    init, run = played.calls("init")[0], played.calls("run")[0]
    assert "context 1024 max 1024 top_k 1 " in init
    assert ("cpus 4 mask f0" in init) == (group != "110")
    if group == "130":
        assert run.endswith("max 50 top_k 40 top_p 0.80 temperature 0.50 repeat 1.25")
    else:
        assert run.endswith("max 1024")
        assert caplog.text.count("RKLLM_TEMPERATURE is every request's") == 1
    assert caplog.text.count("seed") == 1


@needs_compiler
async def test_an_end_token_that_the_runtime_passes_over_ends_the_answer(client, played, newest):
    await client.load(played)
    played.setenv("DOUBLE_TOKEN_MS", "5")
    played.plays("one<|im_end|>" + "two" * 30)
    text, last = await client.whole("a")
    assert (text, last.finish) == ("one", "stop")


@needs_compiler
async def test_several_models_are_loaded_one_after_the_other(client, played, newest):
    other = next(m for m in MODELS.table if m.repository != MODEL.repository)
    shutil.copy(played.file, played.models / f"{other.repository.split('/')[1]}.rkllm")
    await client.load(played)
    client.model = other
    tokens = find_tokenizer(MODEL.repository)
    target = tokens.with_name(other.repository.replace("/", "--"))
    shutil.copytree(tokens, target)
    await client.load(played)
    played.plays("fine")
    assert (await client.whole("a"))[0] == "fine"
    kinds = [line.split()[0] for line in played.log.read_text().splitlines()]
    assert kinds[:3] == ["init", "destroy", "init"]


@needs_compiler
async def test_doctor_says_which_and_why_and_that_no_npu_was_seen(played, newest):
    text = await Engine(Backend).executor.check()
    assert text.startswith("librkllmrt 1.3.0 at ")
    assert played.file.stem in text
    assert "never run on an NPU: please run `doctor`, `models` and `generate Hello`" in text
    assert text.endswith("and no setting names a server)")


@needs_compiler
async def test_the_models_of_a_board_are_listed_with_what_their_files_tell(played, newest):
    (played.models / "deep" / "Mine-1B").mkdir(parents=True)
    (played.models / "deep" / "Mine-1B" / "model.rkllm").write_bytes(b"RKLLM")
    notes = {model.name: model.note for model in await Backend().names()}
    assert notes[played.file.stem].endswith("toolkit 1.1.0")
    assert notes["Mine-1B"].endswith("its file tells no toolkit's version")


@pytest.mark.parametrize(
    ("settings", "chosen"),
    [
        ({}, "server"),
        ({"RKLLM_LIBRARY": "/x/librkllmrt.so"}, "runtime"),
        ({"RKLLM_LIBRARY": "/x/librkllmrt.so", "RKLLM_SERVER_URL": "http://x"}, "server"),
        ({"RKLLM_BACKEND": "runtime", "RKLLM_SERVER_PORT": "80"}, "runtime"),
    ],
)
def test_the_runtime_is_taken_where_it_is_and_no_server_is_named(settings, chosen, monkeypatch):
    monkeypatch.setattr(board, "_FOLDERS", ("nowhere",))
    monkeypatch.setenv("HOME", "/nowhere")
    assert which(Settings.from_env(settings))[0] == chosen


def test_layouts_are_those_of_the_headers():
    assert [abi.check() for abi in ABIS] == [""] * 4
    assert all(abi_of(version) for version in VERSIONS)
    assert abi_of("1.4.0") is None
    assert version_of(Path("/nowhere")) is None
