"""The tokenizer: its EOS ids, its places, and what it never does."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tokenizers
from hub import serve
from plugin import PACKAGE

from exo_kit.kit.repository.files import find_tokenizer
from exo_kit.kit.text import tokenizer as tokenizer_module
from exo_kit.kit.text.tokenizer import Tokenizer, TokenizerError

WORDS = {"hello": 0, "world": 1, "</s>": 2, "<end>": 3, "[UNK]": 4}


def write(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    fast = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, unk_token="[UNK]"))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast.add_special_tokens(["</s>", "<end>"])
    fast.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_every_eos_id_is_known_and_exos_own_is_first(tmp_path):
    folder = write(
        tmp_path,
        tokenizer_config={"eos_token": {"content": "<end>"}},
        generation_config={"eos_token_id": [2, 3]},
        config={"eos_token_id": 4},
    )
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.eos_token_id == 3
    assert tokenizer.eos_token_ids == {2, 3, 4}


def test_an_eos_id_of_zero_counts(tmp_path):
    tokenizer = Tokenizer.from_folder(write(tmp_path, config={"eos_token_id": 0}))
    assert tokenizer.eos_token_id == 0


def test_without_eos_the_error_says_where_to_set_it(tmp_path):
    with pytest.raises(TokenizerError, match="tokenizer_config"):
        Tokenizer.from_folder(write(tmp_path))


def test_broken_files_are_named(tmp_path):
    folder = write(tmp_path, config={"eos_token_id": 2})
    (folder / "tokenizer_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(TokenizerError, match="tokenizer_config"):
        Tokenizer.from_folder(folder)
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(TokenizerError, match="tokenizer"):
        Tokenizer.from_folder(folder)


def test_encode_adds_nothing_and_decode_keeps_special_tokens(tmp_path):
    tokenizer = Tokenizer.from_folder(write(tmp_path, config={"eos_token_id": 2}))
    assert tokenizer.encode("hello </s>") == [0, 2]
    assert tokenizer.decode([0, 2]) == "hello </s>"


CUT = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
PAD = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0}
TWICE = [{"Sequence": {"id": "A", "type_id": 0}}] * 2
SETTINGS = {
    "a prompt that is cut": {"truncation": CUT},
    "a stride": {"truncation": CUT | {"stride": 5}},
    "padding": {"padding": PAD | {"pad_token": "x", "strategy": {"Fixed": 400_000_000}}},
    "a prompt twice": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": TWICE,
            "pair": [*TWICE, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {},
        }
    },
}


def write_with(folder, **members):
    """A tokenizer.json with other members than a model's own."""
    path = write(folder, config={"eos_token_id": 2}) / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | members))
    return folder


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_files_own_settings_change_no_prompt(tmp_path, settings):
    """In a process of its own: with one of them the library aborts it."""
    folder = write_with(tmp_path, **settings)
    code = (
        f"from {PACKAGE}.kit.text.tokenizer import *\n"
        f"print(Tokenizer.from_folder(Path({str(folder)!r})).encode('hello world hello world'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "[0, 1, 0, 1]\n", done.stderr


def test_a_panic_of_the_library_is_a_sentence(tmp_path):
    split = {"type": "Split", "pattern": {"Regex": "(o+)+$"}, "behavior": "Isolated"}
    folder = write_with(tmp_path, pre_tokenizer=split | {"invert": False})
    tokenizer = Tokenizer.from_folder(folder)
    with pytest.raises(TokenizerError, match=r"can't be tokenized: .*retry-limit"):
        tokenizer.encode("o" * 40 + "d")


@pytest.mark.parametrize("part", ["normalizer", "decoder"])
def test_replacements_that_grow_without_end_are_refused(tmp_path, part):
    grow = {"type": "Replace", "pattern": {"String": "o"}, "content": "o" * 1000}
    mark = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    for steps in ([grow] * 3, [mark] * 3):
        write_with(tmp_path, **{part: {"type": "Sequence", f"{part}s": steps}})
        if steps[0] is grow:
            with pytest.raises(TokenizerError, match="make 1000000000 bytes out of one"):
                Tokenizer.from_folder(tmp_path)
        else:
            Tokenizer.from_folder(tmp_path)


def test_other_odd_files_are_refused_with_a_sentence(tmp_path, monkeypatch):
    folder = write(tmp_path, config={"eos_token_id": [-1, True, 1 << 31, 2]})
    assert Tokenizer.from_folder(folder).eos_token_ids == {2}
    (folder / "tokenizer_config.json").write_text("[" * 100_000)
    with pytest.raises(TokenizerError, match="is not JSON"):
        Tokenizer.from_folder(folder)
    (folder / "tokenizer_config.json").write_text('{"chat_template": [1, {"name": "default"}]}')
    assert Tokenizer.from_folder(folder).chat_template is None
    monkeypatch.setattr(tokenizer_module, "LARGEST_FILE", 100)
    with pytest.raises(TokenizerError, match=r"tokenizer.json has \d+ bytes"):
        Tokenizer.from_folder(folder)


def test_other_threads_go_on_while_a_long_text_is_tokenized(tmp_path):
    """The library's encode() holds the interpreter; one long text would still all of exo."""
    tokenizer = Tokenizer.from_folder(write(tmp_path, config={"eos_token_id": 2}))
    text, turns, over = "hello world " * 200_000, 0, threading.Event()

    def work():
        tokenizer.encode(text)
        over.set()

    threading.Thread(target=work).start()
    while not over.wait(0.001):
        turns += 1
    assert turns >= 3


def test_the_chat_template_is_found_in_each_of_its_places(tmp_path):
    base = {"eos_token": "</s>"}
    named = [{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}]
    write(tmp_path / "a", tokenizer_config=base | {"chat_template": "A"})
    write(tmp_path / "b", tokenizer_config=base | {"chat_template": named})
    folder = write(tmp_path / "c", tokenizer_config=base)
    (folder / "chat_template.jinja").write_text("C", encoding="utf-8")
    templates = [Tokenizer.from_folder(tmp_path / name).chat_template for name in "abc"]
    assert templates == ["A", "D", "C"]


def test_exos_downloads_come_first(tmp_path, monkeypatch):
    monkeypatch.setenv("EXO_HOME", str(tmp_path))
    folder = write(tmp_path / "downloads" / "org--name")
    assert find_tokenizer("org/name") == folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """What a process of its own gets from a hub that has org/name alone, and the files it took.

    The hub's library reads its settings once, when it is imported.
    """
    folder = tmp_path_factory.mktemp("hub")
    repository = write(folder / "made")
    (repository / "config.json").write_text('{"eos_token_id": 2}')
    (repository / "model.safetensors").write_bytes(b"weights")
    (repository / "modeling_evil.py").write_text("raise SystemExit")
    names: list[str] = []
    settings = {
        "EXO_HOME": str(folder),
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    code = (
        f"from {PACKAGE}.kit.repository.files import *\n"
        f"from {PACKAGE}.kit.text.tokenizer import *\n"
        "print(Tokenizer.from_folder(find_tokenizer('org/name')).eos_token_ids)\n"
        "find_tokenizer('org/nowhere')"
    )
    with serve({"org/name": repository}, names) as address:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | settings | {"HF_ENDPOINT": address},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    return done, names


def test_the_hub_is_asked_for_the_tokenizers_files_only(hub):
    done, names = hub
    assert "frozenset({2})" in done.stdout, done.stderr
    assert sorted(names) == ["config.json", "tokenizer.json"]


def test_where_the_hub_has_none_the_error_says_where_the_files_belong(hub):
    done, _ = hub
    assert "RepositoryError: no tokenizer for org/nowhere" in done.stderr
    assert "org--nowhere" in done.stderr
