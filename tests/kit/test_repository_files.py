"""Where the files come from, what is not read, and what a folder without them says."""

import os

import pytest
from repository_folder import write

from exo_kit.kit.repository import facts, files
from exo_kit.kit.repository.facts import RepositoryError
from exo_kit.kit.repository.watched import FileChangedError, WatchedFiles
from exo_kit.kit.text.tokenizer import Tokenizer, TokenizerError


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tekken.json", r"has tekken\.json \(Mistral's own format\)"),
        ("tokenizer.model", r"has tokenizer\.model .*save_pretrained"),
        ("vocab.json", r"has vocab\.json .*AutoTokenizer"),
        ("other", r"no tokenizer\.json; download"),
    ],
)
def test_a_folder_without_a_tokenizer_json_says_what_it_has(tmp_path, name, says):
    (tmp_path / name).write_text("{}")
    with pytest.raises(TokenizerError, match=says):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["config", "generation_config", "tokenizer_config", "special_tokens_map", "genai_config"],
)
def test_every_file_is_read_bounded(tmp_path, name):
    folder = write(tmp_path, config={"eos_token_id": 3})
    with (folder / f"{name}.json").open("wb") as file:
        file.truncate(facts.LARGEST + 1)  # a hole
    with pytest.raises(TokenizerError, match=rf"{name}\.json has {facts.LARGEST + 1} bytes"):
        Tokenizer.from_folder(folder)


def test_a_pipe_in_place_of_a_file_keeps_nobody_waiting(tmp_path):
    folder = write(tmp_path, config={"eos_token_id": 3})
    os.mkfifo(folder / "generation_config.json")
    assert Tokenizer.from_folder(folder).eos_token_ids == {3}


def test_a_folder_has_a_pattern_through_links_too(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "model_q4.onnx").touch()
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "onnx").symlink_to(tmp_path / "real")
    assert files.has(tmp_path / "repo", ["onnx/model_q4.onnx*"])
    assert not files.has(tmp_path / "repo", ["onnx/model_q4.onnx*", "*.json"])


def test_mistrals_second_layout_of_the_weights_is_not_fetched(tmp_path, monkeypatch):
    taken = {}
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda repository, **named: taken.update(named) or str(tmp_path),
    )
    assert files.fetch("o/n", ("*.safetensors",)) == tmp_path
    assert taken == {"allow_patterns": ["*.safetensors"], "ignore_patterns": ["consolidated*"]}


def test_a_repository_without_a_tokenizer_json_says_what_it_has(tmp_path, monkeypatch):
    monkeypatch.setenv("EXO_HOME", str(tmp_path / "exo"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda _: ["tekken.json", "params.json"])
    with pytest.raises(
        RepositoryError, match=r"o/n has no tokenizer\.json, and has tekken\.json; "
    ):
        files.find_tokenizer("o/n")


def test_layers_of_a_repository_that_nobody_has_are_none(tmp_path, monkeypatch):
    monkeypatch.setenv("EXO_HOME", str(tmp_path))
    assert files.find_layers("o/n") == 0
    write(files.downloads_folder("o/n"), config={"num_hidden_layers": 9})
    assert files.find_layers("o/n") == 9


def test_a_mapped_file_that_was_written_to_is_a_sentence(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"12345678")
    watched = WatchedFiles([path])
    watched.check()
    path.replace(tmp_path / "old")
    watched.check()  # gone: what is mapped stays
    path.write_bytes(b"1234")
    watched.check()  # another file in its place
    os.truncate(tmp_path / "old", 3)
    (tmp_path / "old").replace(path)
    with pytest.raises(FileChangedError, match="was written to after it was loaded"):
        watched.check()
