"""What is wrong with a runtime, a board or a model: a sentence, and the next request is served."""

import os

import pytest
from played_runtime import compiled, needs_compiler
from running import until

from exo_kit.kit.contract import LoadError, RequestError
from exo_kit.kit.rkllm.runtime import RuntimeLibraryError


@pytest.fixture
def fault(played, tmp_path):
    """The file whose word is the library's fault, for as long as it is there."""
    played.setenv("DOUBLE_FAULTS", str(tmp_path / "fault"))
    return tmp_path / "fault"


async def is_served(client, played):
    """The next request, on what is there now."""
    await client.load(played)
    played.plays("fine")
    assert (await client.whole("served"))[0] == "fine"


@needs_compiler
@pytest.mark.parametrize(
    ("fault", "words"),
    [("error", "the runtime failed in this answer"), ("code", "the runtime failed")],
)
async def test_a_failing_run_is_a_sentence_and_the_next_is_served(
    client, played, newest, monkeypatch, fault, words
):
    await client.load(played)
    played.plays("one two", "one two")
    played.setenv("DOUBLE_FAULT", fault)
    with pytest.raises(RuntimeLibraryError, match=words):
        await client.whole("a")
    monkeypatch.delenv("DOUBLE_FAULT")
    assert (await client.whole("b"))[0] == "one two"


@needs_compiler
async def test_an_abort_that_is_ignored_is_a_sentence_until_it_ends(
    client, played, newest, fault, monkeypatch
):
    monkeypatch.setenv("RKLLM_DRAIN_SECONDS", "0.1")
    await client.load(played)
    fault.write_text("deaf")
    played.setenv("DOUBLE_TOKEN_MS", "200")
    played.plays("a" * 300, "next")  # a minute
    await client.leave("a")
    with pytest.raises(RuntimeLibraryError, match="goes on with an answer that was ended"):
        await client.whole("b")
    fault.write_text("")
    await until(lambda: not client.engine.executor.instance._runtime._stuck)
    assert (await client.whole("c"))[0] == "next"


@needs_compiler
async def test_silence_is_a_sentence(client, played, newest, monkeypatch):
    monkeypatch.setenv("RKLLM_SILENCE_SECONDS", "0.1")
    await client.load(played)
    played.setenv("DOUBLE_FAULT", "silent")
    with pytest.raises(RuntimeLibraryError, match="silent for 0 s"):
        await client.whole("a")


@needs_compiler
async def test_a_load_that_hangs_is_a_sentence_and_nothing_is_tried_meanwhile(
    client, played, newest, fault, monkeypatch
):
    fault.write_text("hang-load")
    played.setenv("DOUBLE_LOAD_MS", "60000")
    for seconds in ("0.1", "60"):  # the second is refused before it would wait
        monkeypatch.setenv("RKLLM_LOAD_SECONDS", seconds)
        with pytest.raises(LoadError, match="the runtime hangs in loading"):
            await client.load(played)
    fault.write_text("")
    await until(lambda: played.calls("destroy"))
    await is_served(client, played)


@needs_compiler
async def test_no_word_and_too_long_a_prompt_are_sentences(client, played, newest):
    await client.load(played)
    played.script.write_text("\n")
    with pytest.raises(RequestError, match="without a word"):
        await client.whole("a")
    with pytest.raises(RequestError, match="context is 512"):
        await client.whole("b", "x" * 600)


@needs_compiler
@pytest.mark.parametrize(
    ("library", "version", "words"),
    [
        ("bare121", None, "does not say its version, and 1.2.3 called as 1.3.0 crashes"),
        ("other", None, "is version 1.9.9, unknown here; known are 1.1.0"),
        ("bare121", "1.2.0", "should be version 1.2.0, but has the symbols of 1.2.1"),
        ("bare110", "1.3.0", "should be version 1.3.0, but has the symbols of 1.1"),
        ("130", "1.2.3", r"says that it is version 1.3.0, and RKLLM_RUNTIME_VERSION is 1.2.3"),
        ("121", "1.3.0", r"says that it is version 1.2.3, and RKLLM_RUNTIME_VERSION is 1.3.0"),
    ],
)
async def test_a_wrong_version_is_refused_before_a_model_is_loaded(
    client, played, libraries, library, version, words, monkeypatch
):
    played.setenv("RKLLM_LIBRARY", str(libraries[library]))
    if version:
        played.setenv("RKLLM_RUNTIME_VERSION", version)
    with pytest.raises(LoadError, match=words):
        await client.load(played)
    assert not played.calls("init")
    played.setenv("RKLLM_LIBRARY", str(libraries["121"]))
    monkeypatch.delenv("RKLLM_RUNTIME_VERSION", raising=False)
    await is_served(client, played)


@needs_compiler
@pytest.mark.parametrize(("library", "version"), [("bare110", None), ("bare121", "1.2.2")])
async def test_symbols_or_a_setting_tell_what_no_text_does(
    client, played, libraries, library, version
):
    played.setenv("RKLLM_LIBRARY", str(libraries[library]))
    if version:
        played.setenv("RKLLM_RUNTIME_VERSION", version)
    await is_served(client, played)


async def test_what_is_no_library_is_a_sentence(client, played, tmp_path):
    (tmp_path / "text.so").write_text("no library")
    played.setenv("RKLLM_LIBRARY", str(tmp_path / "text.so"))
    with pytest.raises(LoadError, match=r"text\.so can't be loaded"):
        await client.load(played)


@needs_compiler
@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("int nothing;", "rkllm_createDefaultParam, rkllm_init, rkllm_run, rkllm_abort"),
        ('#include "runtime_double.c"', "no rkllm_abort$"),
    ],
)
async def test_a_library_that_lacks_a_function_is_a_sentence(
    client, played, newest, tmp_path, source, missing
):
    (tmp_path / "part.c").write_text(f"#define rkllm_abort other\n{source}\n")
    compiled("130", "1.3.0", tmp_path / "part.so", tmp_path / "part.c")
    good = os.environ["RKLLM_LIBRARY"]
    played.setenv("RKLLM_LIBRARY", str(tmp_path / "part.so"))
    with pytest.raises(LoadError, match=missing):
        await client.load(played)
    played.setenv("RKLLM_LIBRARY", good)
    await is_served(client, played)


@needs_compiler
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04", r"did not take .*\(rkllm_init gave -1\)"),
        (b"RKLLM rkllm-toolkit version: 1.4.0", r"toolkit 1\.4\.0, and the runtime is 1\.3\.0"),
    ],
)
async def test_a_file_that_is_no_model_is_a_sentence_and_a_good_one_loads(
    client, played, newest, content, words
):
    good = played.file.read_bytes()
    played.file.write_bytes(content)
    with pytest.raises(LoadError, match=words):
        await client.load(played)
    played.file.write_bytes(good)
    await is_served(client, played)


@needs_compiler
@pytest.mark.parametrize(
    ("script", "words"),
    [("999999", "the id 999999, and the vocabulary"), ("5|[PAD7]", r"gives \[PAD7\]")],
)
async def test_another_toolkits_model_is_told_by_what_it_says(
    client, played, newest, script, words
):
    await client.load(played)
    played.script.write_text(f"{script}\n")
    with pytest.raises(RuntimeLibraryError, match=words):
        await client.whole("a")
