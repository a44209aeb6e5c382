"""What small numbers lose, and how they are made, kept and given."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from checkpoints import LAYERS, tokens
from onnx_models import CONFIGS, assert_near, backends, expected, through

from exo_kit.kit.llama.config import Config
from exo_kit.kit.llama.random_checkpoint import write_checkpoint
from exo_kit.kit.llama.weights import Checkpoint
from exo_kit.kit.onnx import graph, matrices
from exo_kit.kit.onnx import weight_cache as kept
from exo_kit.kit.onnx.graph import BLOCKS, Kind
from exo_kit.kit.onnx.providers import ProviderError
from exo_kit.kit.onnx.weight_cache import WeightCache
from exo_kit.kit.settings import PREFIX, SettingError

# Of the largest logit, on random weights, whose every matrix loses as much as a real one.
LOST = {"int8": 0.05, "int4": 0.6}


@pytest.fixture(params=CONFIGS)
def folder(request, tmp_path):
    write_checkpoint(tmp_path, CONFIGS[request.param])
    return tmp_path


@pytest.mark.parametrize("precision", LOST)
def test_a_precision_loses_no_more_than_it_says(folder, precision, set_):
    set_("PRECISION", precision)
    (backend,), ids = backends(folder), tokens(30)
    for step in (ids[:, :24], *np.split(ids[:, 24:], 6, axis=1)):
        logits = backend.step("request", step)
    assert_near(logits[0, 0], expected(folder, ids), LOST[precision])


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("inputs", [32, 96, 100])
def test_rounded_rows_are_within_half_a_step(bits, inputs):
    rows = np.random.default_rng(0).standard_normal((50, inputs)).astype(np.float32)
    rows[3] = 0
    numbers, scales = matrices.round_rows(rows, bits)
    if bits == 4:
        numbers = np.stack([numbers & 15, numbers >> 4], axis=-1).reshape(*numbers.shape[:2], -1)
    middle = 1 << (bits - 1)
    result = (numbers.astype(np.float32) - middle) * scales[..., None]
    result = result.reshape(len(rows), -1)
    size = BLOCKS[bits]
    steps = np.repeat(np.abs(scales), size, axis=1)
    # The end that is not the extreme may lie one step beyond the last number.
    assert (np.abs(result[:, :inputs] - rows) <= 1.001 * steps[:, :inputs]).all()
    near = np.abs(result[:, :inputs] - rows) <= 0.501 * steps[:, :inputs]
    assert near.mean() > 0.97 if bits == 4 else near.mean() > 0.99
    assert (result[:, inputs:] == 0).all()


def test_rounding_in_pieces_is_rounding_at_once(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, CONFIGS["llama"])
    parts = [Checkpoint(tmp_path).rows("model.embed_tokens.weight", (61, 96))] * 2
    whole = matrices.round_rows(np.concatenate([part[:] for part in parts]), 8)
    monkeypatch.setattr(matrices, "PIECE", 96 * 7)
    with ThreadPoolExecutor(2) as pool:
        result = matrices.rounded(parts, 8, pool)
    for some, all_ in zip(result, whole, strict=True):
        np.testing.assert_array_equal(some, all_)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_rows_are_those_of_the_tensor(tmp_path, dtype):
    write_checkpoint(tmp_path, CONFIGS["llama"], dtype=dtype)
    name, shape = "model.embed_tokens.weight", (61, 96)
    whole, rows = Checkpoint(tmp_path).tensor(name, shape), Checkpoint(tmp_path).rows(name, shape)
    ids = np.array([[3, 60, 3, 0]])
    np.testing.assert_array_equal(rows[ids], whole[ids])
    np.testing.assert_array_equal(rows[50:99], whole[50:])
    assert rows[50:99].dtype == np.float32


def test_the_head_of_4_bits_has_8():
    config = Config.from_dict(CONFIGS["llama"])
    assert graph.bits_of("lm_head", config, Kind(4, False)) == 8
    assert graph.bits_of("model.layers.0.mlp.down_proj", config, Kind(4, False)) == 4
    tied = Config.from_dict(CONFIGS["llama-tied"])
    assert graph.bits_of("model.embed_tokens", tied, Kind(4, False)) == 8


def test_the_graph_has_just_its_layers_and_no_weight():
    config = Config.from_dict(CONFIGS["llama"])
    model = graph.build(config, 1, 2, Kind(8, False))
    names = {w.name for w in model.graph.initializer}
    assert any("layers.1." in name for name in names)
    assert not any("layers.0." in name or "layers.3." in name for name in names)
    assert "lm_head.weight" not in names
    assert model.ByteSize() < 20_000
    last = graph.build(config, LAYERS - 1, LAYERS - 1, Kind(8, False))
    assert "lm_head.weight" in {w.name for w in last.graph.initializer}


def test_float16_is_refused_where_slices_would_differ(tmp_path, set_):
    write_checkpoint(tmp_path, CONFIGS["llama"])
    set_("PRECISION", "float16")
    with pytest.raises(ProviderError, match="take float32, int8 or int4"):
        backends(tmp_path)


def test_a_precision_that_nobody_knows_is_refused(tmp_path, set_):
    set_("PRECISION", "int5")
    with pytest.raises(SettingError, match=f"{PREFIX}PRECISION is 'int5'; set it"):
        backends(tmp_path)


@pytest.fixture
def cached(tmp_path, set_, monkeypatch):
    """A checkpoint of 8 bits whose rounded weights are kept; and what was rounded."""
    checkpoint = tmp_path / "checkpoint"
    write_checkpoint(checkpoint, CONFIGS["qwen2"])
    set_("PRECISION", "int8")
    set_("CACHE", str(tmp_path / "cache"))
    rounded, made = matrices.rounded, []

    def counted(*args):
        made.append(args)
        return rounded(*args)

    monkeypatch.setattr(matrices, "rounded", counted)
    return checkpoint, made


def test_rounded_weights_are_kept_and_used_by_every_split(cached, tmp_path):
    checkpoint, made = cached
    first = through(backends(checkpoint), tokens(5))
    assert len(made) == 4 * LAYERS + 1
    np.testing.assert_array_equal(through(backends(checkpoint, 1, 3), tokens(5)), first)
    assert len(made) == 4 * LAYERS + 1
    [folder] = (tmp_path / "cache").glob("*/*")
    assert sorted(path.name for path in folder.iterdir()) == [
        "head",
        *(f"layer-{n}" for n in range(LAYERS)),
    ]


def test_another_checkpoint_in_the_same_place_is_rounded_anew(cached):
    checkpoint, made = cached
    backends(checkpoint)
    write_checkpoint(checkpoint, CONFIGS["qwen2"], seed=1)
    before = len(made)
    result = through(backends(checkpoint), tokens(5))
    assert len(made) == 2 * before
    assert_near(result[0, 0], expected(checkpoint, tokens(5)), LOST["int8"])


@pytest.mark.parametrize("spoil", [lambda b: b[:-1], lambda b: b"", lambda b: b"\xff" * len(b)])
def test_a_kept_file_that_is_broken_is_made_again(cached, tmp_path, spoil):
    checkpoint, made = cached
    first = through(backends(checkpoint), tokens(5))
    before = len(made)
    [path] = (tmp_path / "cache").glob("*/*/layer-2")
    path.write_bytes(spoil(path.read_bytes()))
    np.testing.assert_array_equal(through(backends(checkpoint), tokens(5)), first)
    assert len(made) == before + 4
    backends(checkpoint)
    assert len(made) == before + 4


def test_a_disk_that_is_full_costs_no_answer(cached, tmp_path, monkeypatch, caplog):
    checkpoint, _ = cached
    real = os.replace
    monkeypatch.setattr(kept.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    logits = through(backends(checkpoint), tokens(5))
    assert "rounded weights are not kept" in caplog.text
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    monkeypatch.setattr(kept.os, "replace", real)
    np.testing.assert_array_equal(through(backends(checkpoint), tokens(5)), logits)


def test_two_writers_leave_one_whole_file(tmp_path):
    part = {"a": np.arange(5000, dtype=np.float32), "b": np.zeros((3, 0), np.uint8)}
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            list(pool.map(lambda _: WeightCache(tmp_path).write("layer-0", part), range(4)))
    assert [path.name for path in tmp_path.iterdir()] == ["layer-0"]
    forms = {name: (str(numbers.dtype), numbers.shape) for name, numbers in part.items()}
    read = WeightCache(tmp_path).read("layer-0", forms)
    assert read is not None
    for name, numbers in part.items():
        np.testing.assert_array_equal(read[name], numbers)
        assert read[name].dtype == numbers.dtype


def kept_file(tmp_path, name="layer-2"):
    [path] = (tmp_path / "cache").glob(f"*/*/{name}")
    return path


def test_the_folder_is_ours_alone(cached, tmp_path):
    backends(cached[0])
    folder = kept_file(tmp_path).parent
    assert [f.stat().st_mode & 0o077 for f in (folder, folder.parent)] == [0, 0]


@pytest.mark.parametrize("spoil", ["open folder", "open file", "link", "pipe"])
def test_what_others_could_have_written_is_not_used(cached, tmp_path, spoil, caplog):
    checkpoint, made = cached
    first = through(backends(checkpoint), tokens(5))
    before, path = len(made), kept_file(tmp_path)
    if spoil == "open folder":
        path.parent.chmod(0o777)
    elif spoil == "open file":
        path.chmod(0o666)
    else:
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere") if spoil == "link" else os.mkfifo(path)
    np.testing.assert_array_equal(through(backends(checkpoint), tokens(5)), first)
    assert len(made) > before
    assert "can't be used and is made again" in caplog.text


@pytest.mark.parametrize("change", ["shape", "dtype", "name", "begin"])
def test_arrays_of_another_form_are_made_again_once(cached, tmp_path, change):
    checkpoint, made = cached
    first = through(backends(checkpoint), tokens(5))
    before, path = len(made), kept_file(tmp_path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    name = next(iter(header["entries"]))
    entry = header["entries"].pop(name)
    new = {"shape": [entry[0], [1], 0], "dtype": ["<i1", *entry[1:]], "begin": [*entry[:2], -8]}
    header["entries"]["other" if change == "name" else name] = new.get(change, entry)
    text = json.dumps(header).encode().ljust(length)
    path.write_bytes(content[:8] + text + content[8 + length :])
    for _ in range(2):
        np.testing.assert_array_equal(through(backends(checkpoint), tokens(5)), first)
    assert len(made) == before + 4
