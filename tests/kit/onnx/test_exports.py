"""Finished exports, whole and cut by layers, in the styles of three exporters."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from checkpoints import CONFIGS as SMALL
from checkpoints import LAYERS, tokens
from exports import STYLES, write_export
from onnx_models import CONFIGS, assert_near, backends, expected, slices, through

from exo_kit.backend import Backend
from exo_kit.kit.llama.random_checkpoint import write_checkpoint
from exo_kit.kit.onnx.cut import part_of
from exo_kit.kit.repository.facts import RepositoryError
from exo_kit.kit.settings import PREFIX

NEAR = {"optimum": 1e-5, "community": 1e-5, "genai": 3e-2}  # genai's has matrices of 8 bits


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(made, CONFIGS["qwen2"])
    return made


def skip_where_it_fails(style):
    if style != "genai" and os.environ.get(PREFIX + "PROVIDER", "").lower() == "openvino":
        pytest.skip("OpenVINO takes the inputs of such a graph for one another (1.24.1)")


@pytest.fixture(scope="module", params=STYLES)
def export(request, folder, tmp_path_factory):
    """The folder of an export, and its style."""
    skip_where_it_fails(request.param)
    made = tmp_path_factory.mktemp(request.param)
    write_export(folder, request.param, made)
    return made, request.param


def test_a_whole_export_has_the_logits_of_llama_py(export, folder):
    chain, ids = backends(export[0]), tokens(60)
    for step in (ids[:, :40], *np.split(ids[:, 40:], 20, axis=1)):
        logits = through(chain, step)
    assert logits.shape == (1, 1, SMALL["llama"]["vocab_size"])
    assert logits.dtype == np.float32
    assert_near(logits[0, 0], expected(folder, ids), NEAR[export[1]])


@pytest.mark.parametrize("cuts", [(1,), (2,), (3,), (1, 2), (2, 3), (1, 2, 3)], ids=str)
def test_an_export_that_is_cut_gives_the_very_numbers_of_the_whole(export, cuts):
    one, several, ids = backends(export[0]), backends(export[0], *cuts), tokens(24)
    for step in (ids[:, :20], *np.split(ids[:, 20:], 4, axis=1)):
        np.testing.assert_array_equal(through(several, step), through(one, step))


def test_a_part_has_only_its_own_weights(export):
    path = next(export[0].rglob("*.onnx"))
    model = onnx.load(path, load_external_data=False)
    parts = [part_of(model, n, n) for n in range(LAYERS)]
    names = [{w.name for w in part.model.graph.initializer} for part in parts]
    matrices = {w.name for w in model.graph.initializer if len(w.dims) > 1 and max(w.dims) > 40}
    shared = [n for n in matrices if sum(n in some for some in names) > 1]
    angles = [w.name for w in model.graph.initializer if w.dims[:1] == [400]]  # of positions
    assert sorted(shared) == sorted(angles)
    assert set.union(*names) == {w.name for w in model.graph.initializer}


def test_what_crosses_is_the_residual_and_in_genais_style_the_mlp(export):
    first = backends(export[0], 2)[0]
    hidden = first.step("request", tokens(7))
    tensors = 2 if export[1] == "genai" else 1
    assert hidden.shape == (1, 7, tensors * CONFIGS["qwen2"]["hidden_size"])
    assert hidden.dtype == np.float32


def test_a_long_prompt_of_an_export_runs_in_blocks(export):
    ids = tokens(300)
    (whole,), both = backends(export[0]), backends(export[0], 2)
    logits = whole.step("request", ids)
    np.testing.assert_array_equal(through(both, ids), logits)
    with pytest.raises(ValueError, match=r"the answer is too long: .* 401 tokens.* ends at 400"):
        whole.step("request", tokens(101))


def test_what_a_request_on_an_export_takes_is_told(export):
    (backend,) = backends(export[0])
    assert backend.size("request") == 0
    backend.step("request", tokens(10))
    assert backend.size("request") == 10 * LAYERS * 2 * 2 * 16 * 4
    assert backend.size(None) > 100_000
    assert backend.context == 400


def test_interleaved_requests_on_an_export(export):
    (backend,) = backends(export[0])
    steps = {name: np.split(tokens(12, seed), [8, 9, 10], axis=1) for seed, name in enumerate("ab")}
    alone = {name: [backend.step(name, x) for x in steps[name]] for name in steps}
    for name in steps:
        backend.forget(name)
    for n in range(4):
        for name in steps:
            np.testing.assert_array_equal(backend.step(name, steps[name][n]), alone[name][n])


def test_a_request_on_an_export_can_begin_with_anothers_positions(export):
    (backend,), ids = backends(export[0]), tokens(30)
    backend.step("old", ids[:, :20])
    backend.step("old", tokens(5, 1))
    backend.reuse("new", "old", 20)
    backend.forget("old")
    output = backend.step("new", ids[:, 20:])
    backend.step("alone", ids[:, :20])
    np.testing.assert_array_equal(output, backend.step("alone", ids[:, 20:]))


def test_steps_that_come_together_on_an_export_run_one_by_one(export):
    (backend,) = backends(export[0])
    output = backend.step_batch([("a", tokens(3)), ("b", tokens(401)), ("c", tokens(1))])
    np.testing.assert_array_equal(output[0], backend.step("alone", tokens(3)))
    assert isinstance(output[1], ValueError)
    assert output[2].shape == output[0].shape


def test_caches_of_float16_are_read_from_the_session(folder, tmp_path):
    write_export(folder, "community", tmp_path, half=True)
    both, ids = backends(tmp_path, 2), tokens(24)
    for step in (ids[:, :20], *np.split(ids[:, 20:], 4, axis=1)):
        logits = through(both, step)
    assert_near(logits[0, 0], expected(folder, ids), 2e-2)


def test_an_export_without_names_of_layers_runs_whole_and_says_why_it_cant_be_cut(folder, tmp_path):
    skip_where_it_fails("optimum")
    path = write_export(folder, "optimum", tmp_path)
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = node.name.replace("layers.", "block")
    onnx.save(model, path)
    ids = tokens(9)
    assert_near(through(backends(tmp_path), ids)[0, 0], expected(folder, ids), 1e-5)
    with pytest.raises(RepositoryError, match=rf"can't be cut .* runs whole.*{PREFIX}WHOLE=1"):
        backends(tmp_path, 2)


def changed(path: Path, change) -> None:
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, path)


def rename_input(graph):
    graph.input[0].name = "tokens"


def fix_length(graph):
    graph.input[0].type.tensor_type.shape.dim[1].dim_value = 64


def compile_(graph):
    graph.node.append(onnx.helper.make_node("EPContext", [], ["made"], domain="com.microsoft"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (rename_input, "asks for tokens; an export is wanted with input_ids"),
        (fix_length, "prompts of one length only"),
        (compile_, "compiled for one device"),
        (lambda graph: graph.input.pop(), None),
    ],
)
def test_what_does_not_run_is_refused_by_a_sentence(folder, tmp_path, change, says):
    path = write_export(folder, "optimum", tmp_path)
    changed(path, change)
    with pytest.raises((RepositoryError, RuntimeError), match=says):
        Backend().load(slices()[0], tmp_path, None)


def test_pipelines_of_npus_are_refused(tmp_path):
    about = {"model": {"decoder": {"pipeline": [{"embeddings": {"filename": "a.onnx"}}]}}}
    (tmp_path / "genai_config.json").write_text(json.dumps(about))
    with pytest.raises(RepositoryError, match=r"a pipeline of models.* compiled for one NPU"):
        Backend().load(slices()[0], tmp_path, None)


def test_a_file_that_is_no_model_is_named(folder, tmp_path):
    path = write_export(folder, "optimum", tmp_path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(RepositoryError, match=r"model\.onnx is no ONNX model"):
        Backend().load(slices()[0], tmp_path, None)


def test_a_table_with_other_layers_than_the_export_is_refused(export):
    with pytest.raises(RepositoryError, match="has 4 layers, but the model card of small says 5"):
        Backend().load(slices(total=5)[0], export[0], None)


def test_which_of_several_exports_is_asked_for(folder, tmp_path, set_):
    skip_where_it_fails("community")
    path = write_export(folder, "community", tmp_path)
    (path.parent / "model_q4.onnx").write_bytes(b"no model")
    with pytest.raises(RepositoryError, match=rf"onnx/model\.onnx, onnx/model_q4.*{PREFIX}EXPORT"):
        Backend().load(slices()[0], tmp_path, None)
    set_("EXPORT", "onnx/model.onnx")
    assert through(backends(tmp_path), tokens(3)).shape[1] == 1
    set_("EXPORT", "onnx/model_fp16.onnx")
    with pytest.raises(FileNotFoundError, match="model_fp16"):
        Backend().load(slices()[0], tmp_path, None)


@pytest.mark.parametrize(
    ("setting", "files", "other"),
    [
        ("onnx/q4.onnx", ["onnx/q4.onnx", "onnx/q4.onnx_data_1"], "onnx/model.onnx"),
        ("cpu/int4", ["cpu/int4/model.onnx.data", "config.json"], "gpu/int4/model.onnx.data"),
        ("", ["model-00001-of-00002.safetensors", "config.json"], "onnx/model.onnx"),
    ],
)
def test_only_the_wanted_files_are_asked_for(set_, setting, files, other):
    from fnmatch import fnmatch

    from exo_kit.kit.onnx.export_files import needed_files

    set_("EXPORT", setting)
    patterns = needed_files()
    for name in files:
        assert any(fnmatch(name, pattern) for pattern in patterns)
    assert not any(fnmatch(other, pattern) for pattern in patterns)
