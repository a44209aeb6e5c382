"""Files of weights that are wrong: each is refused with a sentence, and costs no memory."""

import json
import tracemalloc
from pathlib import Path

import pytest
from checkpoints import CONFIGS
from tensors import load, rewrite

from exo_kit.kit.llama import weights
from exo_kit.kit.llama.config import Config
from exo_kit.kit.llama.random_checkpoint import write_checkpoint
from exo_kit.kit.llama.weights import INDEX, SINGLE, load_model
from exo_kit.kit.repository.facts import RepositoryError

UP = "model.layers.1.mlp.up_proj.weight"


def change(**entries):
    """A change of one tensor's entry in a header."""
    return lambda header: header[UP].update(entries)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (lambda header: header.pop(UP), rf"has no tensor {UP} \(56, 32\)"),
        (lambda header: header.update({UP: 5}), rf"has no tensor {UP} \(56, 32\)"),
        (change(shape=[32, 56]), rf"{UP} has the shape \(32, 56\), but .* \(56, 32\)"),
        (change(shape=[1792]), rf"{UP} has the shape \(1792\), but .* \(56, 32\)"),
        (change(shape=None), rf"{UP} has the shape None, but .* \(56, 32\)"),
        (change(dtype="F8_E4M3"), f"{UP} has the dtype F8_E4M3, none of F32, F16, BF16"),
        (change(dtype="I8"), f"{UP} has the dtype I8"),
        (change(dtype=["F32"]), f"{UP} has the dtype"),
        (change(dtype="F16"), f"{UP} stands at .* not its 3584 bytes"),
        (change(data_offsets=[0, 8]), f"{UP} stands at .* not its 7168 bytes"),
        (change(data_offsets=[-8, 7160]), f"{UP} stands at"),
        (change(data_offsets=["0", "7168"]), f"{UP} stands at"),
        (change(data_offsets=[0]), f"{UP} stands at"),
        (change(data_offsets=[10**9, 10**9 + 7168]), f"cut short.*{UP} ends at"),
    ],
)
def test_a_wrong_tensor_is_named_with_its_file_and_shapes(tmp_path, header, says):
    write_checkpoint(tmp_path, CONFIGS["llama"])
    rewrite(tmp_path / SINGLE, header)
    with pytest.raises(RepositoryError, match=says) as caught:
        load(tmp_path)
    assert str(tmp_path / SINGLE) in str(caught.value)
    load(tmp_path, 2, 3)  # other layers are well


@pytest.mark.parametrize("keep", [0, 5, 8, 100, 0.5, -1])
def test_a_file_that_is_cut_short_is_refused(tmp_path, keep):
    write_checkpoint(tmp_path, CONFIGS["llama"])
    path = tmp_path / SINGLE
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if keep == 0.5 else keep])
    with pytest.raises(RepositoryError, match="cut short") as caught:
        load(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", [b"{", b"[]", b"\xff\xff", b"[" * 100_000, b"null"])
def test_a_broken_header_is_refused(tmp_path, text):
    write_checkpoint(tmp_path, CONFIGS["llama"])
    (tmp_path / SINGLE).write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(RepositoryError, match=r"'s header (is not JSON|holds no object)") as caught:
        load(tmp_path)
    assert str(tmp_path / SINGLE) in str(caught.value)


def test_a_header_that_claims_more_than_the_file_is_refused(tmp_path):
    write_checkpoint(tmp_path, CONFIGS["llama"])
    (tmp_path / SINGLE).write_bytes(b"\xff" * 8 + b"{}")
    with pytest.raises(RepositoryError, match="cut short at 10 bytes"):
        load(tmp_path)


@pytest.mark.parametrize("length", [weights.LARGEST + 1, 2 * 10**9])
def test_a_header_that_no_model_has_costs_no_memory(tmp_path, length):
    write_checkpoint(tmp_path, CONFIGS["llama"])
    with (tmp_path / SINGLE).open("wb") as file:
        file.write(length.to_bytes(8, "little"))
        file.truncate(8 + length)  # a hole
    config = Config.from_folder(tmp_path)
    tracemalloc.start()
    with pytest.raises(RepositoryError, match=f"a header of {length} bytes, and no model's"):
        load_model(tmp_path, config, 0, 0)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_an_index_that_no_model_has_is_not_read(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, CONFIGS["llama"], files=2)
    with (tmp_path / INDEX).open("wb") as file:
        file.truncate(weights.LARGEST + 1)
    config = Config.from_folder(tmp_path)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(RepositoryError, match=f"{weights.LARGEST + 1} bytes; no model's"):
        load_model(tmp_path, config, 0, 0)


@pytest.mark.parametrize("home", [None, 5, "", "../elsewhere.safetensors", "/etc/passwd"])
def test_an_index_leads_nowhere_else(tmp_path, home):
    write_checkpoint(tmp_path, CONFIGS["llama"], files=2)
    index = json.loads((tmp_path / INDEX).read_text())
    index["weight_map"]["model.embed_tokens.weight"] = home
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(RepositoryError, match=r"names no file for model\.embed_tokens\.weight"):
        load(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": []}'])
def test_a_broken_index_is_refused(tmp_path, text):
    write_checkpoint(tmp_path, CONFIGS["llama"], files=2)
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(RepositoryError) as caught:
        load(tmp_path)
    assert str(tmp_path / INDEX) in str(caught.value)
