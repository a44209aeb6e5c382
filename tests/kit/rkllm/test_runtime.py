"""The runtime in the process, against a C library that plays each group of its versions."""

import asyncio
import shutil
import subprocess
import time
from contextlib import aclosing
from pathlib import Path

import pytest
from serving import MODEL, MODEL_ID

from exo_kit.backend import Backend
from exo_kit.kit.contract import Layers, LoadError, Request, RequestError, Sampling
from exo_kit.kit.engine.engine import Engine
from exo_kit.kit.repository.files import find_tokenizer
from exo_kit.kit.rkllm import board
from exo_kit.kit.rkllm.abi import ABIS, VERSIONS, abi_of
from exo_kit.kit.rkllm.backend import which
from exo_kit.kit.rkllm.runtime import Library, RuntimeLibraryError, version_of
from exo_kit.kit.rkllm.settings import Settings
from exo_kit.models import MODELS

COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
GROUPS = {"110": "1.1.4", "120": "1.2.0", "121": "1.2.3", "130": "1.3.0"}
TEXT = "Hello 😀 日本語 नमस्ते 👩‍👩‍👧."
PROMPT = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler makes the library")


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    """The library of each group, by the group's number; "bare" tells no version."""
    folder = tmp_path_factory.mktemp("runtime")
    source = Path(__file__).with_name("runtime_double.c")
    made = {}
    more = {"bare121": ("121", None), "bare110": ("110", None), "other": ("121", "1.9.9")}
    for name, (group, version) in ({g: (g, GROUPS[g]) for g in GROUPS} | more).items():
        made[name] = folder / name / "librkllmrt.so"
        made[name].parent.mkdir()
        define = [f'-DVERSION="{version}"'] if version else []
        command = [COMPILER, "-shared", "-fPIC", "-w", "-x", "c", f"-DGROUP={group}", *define]
        subprocess.run([*command, "-o", made[name], source], check=True)
    return made


class Board:
    """A board's folder: models, a script of answers, a log of calls."""

    def __init__(self, folder, monkeypatch):
        self.models, self.log = folder / "models", folder / "log"
        self.script, self.setenv = folder / "script", monkeypatch.setenv
        self.models.mkdir()
        self.file = self.models / f"{MODEL.repository.split('/')[1]}_W8A8_RK3588.rkllm"
        self.file.write_bytes(b"RKLLM" + bytes(3000) + b"rkllm-toolkit version: 1.1.0\0")
        self.setenv("RKLLM_MODELS", str(self.models))
        self.setenv("DOUBLE_SCRIPT", str(self.script))
        self.setenv("DOUBLE_LOG", str(self.log))
        self.tokenizer = None

    def plays(self, *texts):
        """The answers, each as its ids; what is half a character is marked."""
        lines = []
        for text in texts:
            ids, words = self.tokenizer.encode(text), []
            for n, token in enumerate(ids):
                half = self.tokenizer.decode(ids[: n + 1]).endswith("\ufffd")
                words.append(f"{'~' if half else ''}{token}")
            lines.append(" ".join(words))
        self.script.write_text("\n".join(lines) + "\n")

    def calls(self, kind):
        """The calls of a kind, as their words."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.split()[0] == kind]


@pytest.fixture
def played(exo_home, tmp_path, monkeypatch):
    made = Board(tmp_path, monkeypatch)
    for name in ("URL", "HOST", "PORT"):
        monkeypatch.delenv(f"RKLLM_SERVER_{name}", raising=False)
    return made


@pytest.fixture(params=GROUPS)
def group(request, libraries, played):
    """Every group's library, one after the other."""
    played.setenv("RKLLM_LIBRARY", str(libraries[request.param]))
    return request.param


@pytest.fixture
def newest(libraries, played):
    played.setenv("RKLLM_LIBRARY", str(libraries["130"]))


class Host:
    """Loads and asks as a host does."""

    def __init__(self):
        self.model, self.engine = MODELS.by_id[MODEL_ID], Engine(Backend)

    async def tokenizer(self):
        return find_tokenizer(self.model.repository)

    async def files(self, *_):
        raise AssertionError("the runtime's files are the board's")

    async def load(self, board=None, model_id=None):
        total = self.model.layers
        await self.engine.load(Layers(model_id or self.model.id, 0, total - 1, total), self)
        if board is not None:
            board.tokenizer = self.engine.tokenizer

    def pieces(self, name, prompt=PROMPT, most=400, **sampling):
        ids = tuple(self.engine.tokenizer.encode(prompt))
        return self.engine.answer(Request(name, prompt, ids, most, Sampling(**sampling)))

    async def whole(self, name, *arguments, **named):
        async with asyncio.timeout(20):
            async with aclosing(self.pieces(name, *arguments, **named)) as pieces:
                found = [piece async for piece in pieces]
        return "".join(piece.text for piece in found), found[-1]

    async def leave(self, name, **named):
        """Go away after the first piece with a text."""
        async with aclosing(self.pieces(name, **named)) as pieces:
            async for piece in pieces:
                if piece.text:
                    return piece.text


@pytest.fixture
async def host():
    made = Host()
    yield made
    await made.engine.close()


@needs_compiler
async def test_the_answer_is_the_librarys_to_the_letter(host, played, group):
    await host.load(played)
    played.plays(TEXT)
    text, last = await host.whole("a")
    assert (text, last.finish) == (TEXT, "stop")
    prompt = host.engine.tokenizer.encode(PROMPT)
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (
        len(prompt), len(host.engine.tokenizer.encode(TEXT)),
    )  # fmt: skip
    run = played.calls("run")[0].split()
    assert run[1:5] == ["ids", str(len(prompt)), "first", str(prompt[0])]


@needs_compiler
@pytest.mark.parametrize("most", range(1, 12))
async def test_a_limit_ends_an_answer_behind_a_whole_character(host, played, newest, most):
    await host.load(played)
    played.plays(TEXT)
    text, last = await host.whole("a", most=most)
    assert TEXT.startswith(text)
    assert last.finish == "length"


@needs_compiler
async def test_a_length_stop_leaves_nothing_to_the_next_answer(host, played, group):
    await host.load(played)
    played.setenv("DOUBLE_FAULT", "leak")
    played.plays("abcdefgh", "the next", "and one more")
    assert (await host.whole("a", most=3))[0] == "abc"
    other = PROMPT.replace("Hi", "Another question")
    text, last = await host.whole("b", other)
    if group != "110":  # which has no call to clear with
        assert (text, last.finish) == ("the next", "stop")


@needs_compiler
async def test_five_hundred_answers_of_which_a_third_is_cut(host, played, newest):
    await host.load(played)
    texts = [f"answer {n} 日本 😀 end" for n in range(500)]
    played.plays(*texts)
    before = len(asyncio.all_tasks())
    for n, text in enumerate(texts):
        if n % 3 == 0:
            assert text.startswith(await host.leave(f"r{n}"))
        else:
            assert (await host.whole(f"r{n}"))[0] == text
    await host.whole("last")
    await asyncio.sleep(0.3)
    assert len(asyncio.all_tasks()) <= before
    assert len(host.engine.requests) == 0


@needs_compiler
async def test_a_cancel_aborts_at_once(host, played, group):
    await host.load(played)
    played.setenv("DOUBLE_TOKEN_MS", "20")
    played.plays("a" * 200, "next")
    await host.leave("a")
    begun = time.perf_counter()
    while not played.calls("end"):
        await asyncio.sleep(0.005)
        assert time.perf_counter() - begun < 5
    assert time.perf_counter() - begun < 0.5  # 0.2 s on a machine of one's own
    assert len(played.calls("abort")) == 1
    assert (await host.whole("b"))[0] == "next"


@needs_compiler
async def test_the_cache_is_kept_for_the_next_turn_and_cleared_otherwise(host, played, group):
    await host.load(played)
    played.plays("Hello.", "Again.", "Other.")
    first, last = await host.whole("a")
    assert last.usage.reused_tokens == 0
    turn = f"{PROMPT}{first}<|im_end|>\n<|im_start|>user\nMore<|im_end|>\n<|im_start|>assistant\n"
    text, last = await host.whole("b", turn)
    kept = group in ("121", "130")
    tokenizer = host.engine.tokenizer
    have = len(tokenizer.encode(PROMPT + first)) - 1  # the last token is not computed yet
    assert (text, last.usage.reused_tokens) == ("Again.", have if kept else 0)
    sent = len(tokenizer.encode(turn)) - (have if kept else 0)
    assert f"ids {sent} " in played.calls("run")[1]
    assert len(played.calls("clear")) == {"110": 0, "120": 2, "121": 1, "130": 1}[group]
    assert (await host.whole("c", PROMPT.replace("Hi", "Bye")))[0] == "Other."
    assert group == "110" or " cached 0 " in played.calls("run")[2]


@needs_compiler
async def test_limit_and_sampling_are_given_as_the_version_takes_them(
    host, played, group, caplog, monkeypatch
):
    monkeypatch.setenv("RKLLM_CPUS", "0xf0")
    monkeypatch.setenv("RKLLM_CONTEXT", "1024")
    await host.load(played)
    played.plays("one", "two")
    await host.whole("a", most=50, temperature=0.5, top_p=0.8, repetition_penalty=1.25)
    await host.whole("b", most=50, temperature=0.5, seed=7)
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
@pytest.mark.parametrize(
    ("fault", "words"),
    [("error", "the runtime failed in this answer"), ("code", "the runtime failed")],
)
async def test_a_failing_run_is_a_sentence_and_the_next_is_served(
    host, played, newest, monkeypatch, fault, words
):
    await host.load(played)
    played.plays("one two", "one two")
    played.setenv("DOUBLE_FAULT", fault)
    with pytest.raises(RuntimeLibraryError, match=words):
        await host.whole("a")
    monkeypatch.delenv("DOUBLE_FAULT")
    assert (await host.whole("b"))[0] == "one two"


@needs_compiler
async def test_an_abort_that_is_ignored_is_a_sentence_until_it_ends(
    host, played, newest, monkeypatch
):
    monkeypatch.setenv("RKLLM_DRAIN_SECONDS", "0.1")
    await host.load(played)
    played.setenv("DOUBLE_FAULT", "deaf")
    played.setenv("DOUBLE_TOKEN_MS", "20")
    played.plays("a" * 60, "next")
    await host.leave("a")
    with pytest.raises(RuntimeLibraryError, match="goes on with an answer that was ended"):
        await host.whole("b")
    while not played.calls("end"):  # noqa: ASYNC110 - the library writes it
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)
    assert (await host.whole("c"))[0] == "next"


@needs_compiler
async def test_silence_is_a_sentence(host, played, newest, monkeypatch):
    monkeypatch.setenv("RKLLM_SILENCE_SECONDS", "0.1")
    await host.load(played)
    played.setenv("DOUBLE_FAULT", "silent")
    with pytest.raises(RuntimeLibraryError, match="silent for 0 s"):
        await host.whole("a")


@needs_compiler
async def test_a_load_that_hangs_is_a_sentence_and_nothing_is_tried_meanwhile(
    host, played, newest, monkeypatch
):
    monkeypatch.setenv("RKLLM_LOAD_SECONDS", "0.1")
    played.setenv("DOUBLE_FAULT", "hang-load")
    for _ in range(2):
        with pytest.raises(LoadError, match="the runtime hangs in loading"):
            await host.load(played)


@needs_compiler
async def test_several_models_are_loaded_one_after_the_other(host, played, newest):
    other = next(m for m in MODELS.table if m.repository != MODEL.repository)
    shutil.copy(played.file, played.models / f"{other.repository.split('/')[1]}.rkllm")
    await host.load(played)
    host.model = other
    tokens = find_tokenizer(MODEL.repository)
    target = tokens.with_name(other.repository.replace("/", "--"))
    shutil.copytree(tokens, target)
    await host.load(played)
    played.plays("fine")
    assert (await host.whole("a"))[0] == "fine"
    kinds = [line.split()[0] for line in played.log.read_text().splitlines()]
    assert kinds[:3] == ["init", "destroy", "init"]


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
    host, played, libraries, library, version, words
):
    played.setenv("RKLLM_LIBRARY", str(libraries[library]))
    if version:
        played.setenv("RKLLM_RUNTIME_VERSION", version)
    with pytest.raises(LoadError, match=words):
        await host.load(played)
    assert not played.calls("init")


@needs_compiler
@pytest.mark.parametrize(("library", "version"), [("bare110", None), ("bare121", "1.2.2")])
async def test_symbols_or_a_setting_tell_what_no_text_does(
    host, played, libraries, library, version
):
    played.setenv("RKLLM_LIBRARY", str(libraries[library]))
    if version:
        played.setenv("RKLLM_RUNTIME_VERSION", version)
    await host.load(played)
    played.plays("fine")
    assert (await host.whole("a"))[0] == "fine"


async def test_what_is_no_library_is_a_sentence(host, played, tmp_path):
    (tmp_path / "text.so").write_text("no library")
    played.setenv("RKLLM_LIBRARY", str(tmp_path / "text.so"))
    with pytest.raises(LoadError, match=r"text\.so can't be loaded"):
        await host.load(played)


@needs_compiler
def test_a_library_without_the_functions_is_no_runtime(tmp_path):
    (tmp_path / "empty.c").write_text("int nothing;\n")
    made = tmp_path / "empty.so"
    subprocess.run([COMPILER, "-shared", "-o", made, tmp_path / "empty.c"], check=True)
    with pytest.raises(RuntimeLibraryError, match="has none of its functions"):
        Library(made)


@needs_compiler
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04", r"did not take .*\(rkllm_init gave -1\)"),
        (b"RKLLM rkllm-toolkit version: 1.4.0", r"toolkit 1\.4\.0, and the runtime is 1\.3\.0"),
    ],
)
async def test_a_file_that_is_no_model_is_a_sentence_and_a_good_one_loads(
    host, played, newest, content, words
):
    good = played.file.read_bytes()
    played.file.write_bytes(content)
    with pytest.raises(LoadError, match=words):
        await host.load(played)
    played.file.write_bytes(good)
    await host.load(played)
    played.plays("fine")
    assert (await host.whole("a"))[0] == "fine"


@needs_compiler
@pytest.mark.parametrize(
    ("script", "words"),
    [("999999", "the id 999999, and the vocabulary"), ("5|[PAD7]", r"gives \[PAD7\]")],
)
async def test_another_toolkits_model_is_told_by_what_it_says(host, played, newest, script, words):
    await host.load(played)
    played.script.write_text(f"{script}\n")
    with pytest.raises(RuntimeLibraryError, match=words):
        await host.whole("a")


@needs_compiler
async def test_an_end_token_that_the_runtime_passes_over_ends_the_answer(host, played, newest):
    await host.load(played)
    played.setenv("DOUBLE_TOKEN_MS", "5")
    played.plays("one<|im_end|>" + "two" * 30)
    text, last = await host.whole("a")
    assert (text, last.finish) == ("one", "stop")


@needs_compiler
async def test_no_word_and_too_long_a_prompt_are_sentences(host, played, newest):
    await host.load(played)
    played.script.write_text("\n")
    with pytest.raises(RequestError, match="without a word"):
        await host.whole("a")
    with pytest.raises(RequestError, match="context is 512"):
        await host.whole("b", "x" * 600)


@needs_compiler
async def test_doctor_says_which_and_why_and_that_no_npu_was_seen(played, newest):
    said = await Engine(Backend).executor.check()
    assert said.startswith("librkllmrt 1.3.0 at ")
    assert played.file.stem in said
    assert "never run on an NPU: please run `doctor`, `models` and `generate Hello`" in said
    assert said.endswith("and no setting names a server)")


@needs_compiler
async def test_the_models_of_a_board_are_listed_with_what_their_files_tell(played, newest):
    (played.models / "deep" / "Mine-1B").mkdir(parents=True)
    (played.models / "deep" / "Mine-1B" / "model.rkllm").write_bytes(b"RKLLM")
    found = {model.name: model.note for model in await Backend().names()}
    assert found[played.file.stem].endswith("toolkit 1.1.0")
    assert found["Mine-1B"].endswith("its file tells no toolkit's version")


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
