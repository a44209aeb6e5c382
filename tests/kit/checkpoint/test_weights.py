"""safetensors files against the library that writes them, and files that are wrong."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints import CONFIGS, LAYERS
from safetensors.numpy import save_file
from tensors import all_tensors, load, of_the_library, rewrite

from exo_kit.kit.llama import weights
from exo_kit.kit.llama.config import Config
from exo_kit.kit.llama.random_checkpoint import tensor_shapes, write_checkpoint
from exo_kit.kit.llama.weights import INDEX, SINGLE
from exo_kit.kit.repository.watched import FileChangedError


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_tensor_is_what_the_library_reads(tmp_path, monkeypatch, name, dtype):
    monkeypatch.setattr(weights, "PIECE", 100)  # so that tensors are converted in several pieces
    write_checkpoint(tmp_path, CONFIGS[name], dtype=dtype)
    tensors, expected = all_tensors(load(tmp_path)), of_the_library(tmp_path / SINGLE)
    assert tensors.keys() == expected.keys()
    for tensor, numbers in expected.items():
        assert tensors[tensor].dtype == np.float32
        np.testing.assert_array_equal(tensors[tensor], numbers, err_msg=tensor)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_files_that_the_library_writes_are_read(tmp_path, dtype):
    write_checkpoint(tmp_path, CONFIGS["llama"])
    tensors = {k: v.astype(dtype) for k, v in of_the_library(tmp_path / SINGLE).items()}
    save_file(tensors, tmp_path / SINGLE, {"format": "np"})
    for name, tensor in all_tensors(load(tmp_path)).items():
        np.testing.assert_array_equal(tensor, tensors[name], err_msg=name)


@pytest.mark.parametrize("files", [2, 3])
def test_an_index_leads_to_the_same_tensors(tmp_path, files):
    write_checkpoint(tmp_path / "one", CONFIGS["qwen3"])
    write_checkpoint(tmp_path / "more", CONFIGS["qwen3"], files=files)
    assert len([*(tmp_path / "more").glob("*.safetensors")]) == files
    one, more = (all_tensors(load(tmp_path / name)) for name in ("one", "more"))
    assert one.keys() == more.keys()
    assert all(np.array_equal(one[name], more[name]) for name in one)


def test_an_unaligned_header_is_no_harm(tmp_path):
    write_checkpoint(tmp_path, CONFIGS["llama"])
    path = tmp_path / SINGLE
    expected = of_the_library(path)
    rewrite(path)
    length = int.from_bytes(path.read_bytes()[:8], "little")
    rewrite(path, padding=b" " * (4 - length % 4 + 1))
    tensors = all_tensors(load(tmp_path))
    for name, tensor in tensors.items():
        assert tensor.flags.aligned
        np.testing.assert_array_equal(tensor, expected[name])


def test_float32_is_a_view_of_the_file(tmp_path):
    write_checkpoint(tmp_path, CONFIGS["llama"])
    assert not any(tensor.flags.owndata for tensor in all_tensors(load(tmp_path)).values())


@pytest.mark.parametrize("name", ["llama", "qwen2"])
@pytest.mark.parametrize(("start", "end"), [(0, 0), (1, 2), (2, 3), (0, 3)])
def test_a_shard_has_its_own_tensors_only(tmp_path, name, start, end):
    write_checkpoint(tmp_path, CONFIGS[name])
    model = load(tmp_path, start, end)
    assert len(model.layers) == end - start + 1
    assert (model.embedding is not None) is (start == 0)
    assert (model.norm is not None) is (end == 3)
    assert (model.head is not None) is (end == 3)
    if name == "qwen2" and (start, end) == (0, 3):
        assert model.head is model.embedding
    expected = of_the_library(tmp_path / SINGLE)
    key = "mlp.up_proj.weight"
    np.testing.assert_array_equal(model.layers[-1][key], expected[f"model.layers.{end}.{key}"])


@pytest.mark.parametrize(("start", "end"), [(0, 0), (1, 2), (3, 3), (0, 3)])
@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_only_files_with_the_shards_tensors_are_opened(tmp_path, monkeypatch, name, start, end):
    every = tensor_shapes(Config.from_dict(CONFIGS[name]))
    write_checkpoint(tmp_path, CONFIGS[name], files=len(every))
    homes = json.loads((tmp_path / INDEX).read_text())["weight_map"]
    expected = {home for tensor, home in homes.items() if needed(name, tensor, start, end)}
    opened, path_open = [], Path.open

    def record(path, *args, **kwargs):
        opened.append(path.name)
        return path_open(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", record)
    load(tmp_path, start, end)
    assert sorted(home for home in opened if home.endswith(".safetensors")) == sorted(expected)


def test_a_file_is_opened_once(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, CONFIGS["llama"])
    opened, path_open = [], Path.open

    def record(path, *args, **kwargs):
        opened.append(path.name)
        return path_open(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", record)
    load(tmp_path)
    assert opened.count(SINGLE) == 1


def needed(name, tensor, start, end):
    """Whether a shard needs a tensor."""
    if tensor.startswith("model.layers."):
        return start <= int(tensor.split(".")[2]) <= end
    if tensor == "model.embed_tokens.weight":
        return start == 0 or (end == LAYERS - 1 and name == "qwen2")
    return end == LAYERS - 1


def test_a_file_that_is_not_there_is_named_with_the_tensor(tmp_path):
    write_checkpoint(tmp_path, CONFIGS["qwen2"], files=3)
    (tmp_path / "model-00001-of-00003.safetensors").unlink()
    assert load(tmp_path, 2, 2).layers
    with pytest.raises(FileNotFoundError, match=r"model-00001-of-00003.*; model\.embed_tokens\."):
        load(tmp_path, 2, 3)


def test_no_weights_at_all(tmp_path):
    write_checkpoint(tmp_path, CONFIGS["llama"])
    (tmp_path / SINGLE).unlink()
    with pytest.raises(FileNotFoundError, match=f"neither {SINGLE} nor {INDEX}"):
        load(tmp_path)


PEAK = """
import sys
from pathlib import Path
from exo_kit.kit.llama import weights
from exo_kit.kit.llama.config import Config
from exo_kit.kit.llama.weights import load_model

weights.PIECE = 2**20

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024

for folder in map(Path, sys.argv[1:]):
    config = Config.from_folder(folder)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is the present again
    before = status("VmRSS")
    model = load_model(folder, config, 0, config.layers - 1)
    print(status("VmHWM") - before)
    del model
"""


def write_zeros(folder, config, dtype):
    """A checkpoint that is a hole on the disk; returns the bytes of its tensors as float32."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for name, shape in tensor_shapes(Config.from_dict(config)).items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (folder / SINGLE).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return 2 * end


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_converting_takes_little_more_than_the_result(tmp_path):
    # Nearly all of it is one tensor, of many pieces.
    sizes = {"hidden_size": 512, "vocab_size": 2**14, "num_hidden_layers": 1}
    config = CONFIGS["llama"] | sizes | {"tie_word_embeddings": True}
    folders = [tmp_path / "BF16", tmp_path / "F16"]
    float32 = [write_zeros(folder, config, folder.name) for folder in folders]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *folders], capture_output=True, text=True, check=True
    )
    for peak, result in zip(done.stdout.split(), float32, strict=True):
        assert 0.9 * result <= int(peak) <= 1.15 * result


@pytest.mark.parametrize("name", ["a.gguf", "pytorch_model-1.bin", "consolidated.safetensors"])
def test_a_folder_with_other_weights_says_which(tmp_path, name):
    write_checkpoint(tmp_path, CONFIGS["llama"])
    (tmp_path / SINGLE).rename(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=rf"has {name} and neither .*save_pretrained"):
        load(tmp_path)


@pytest.mark.parametrize(("dtype", "watched"), [("F32", True), ("BF16", False)])
def test_a_file_that_arrays_are_views_of_is_watched(tmp_path, dtype, watched):
    write_checkpoint(tmp_path, CONFIGS["llama"], dtype=dtype)
    model = load(tmp_path)
    model.files.check()
    with (tmp_path / SINGLE).open("r+b") as file:
        file.truncate(100)
    if watched:
        with pytest.raises(FileChangedError, match="was written to after it was loaded"):
            model.files.check()
    else:
        model.files.check()
