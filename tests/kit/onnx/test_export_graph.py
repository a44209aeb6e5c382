"""What an export may hold: weights behind links, and graphs that are somebody's attack."""

import hashlib
import os
import shutil

import numpy as np
import onnx
import pytest
from checkpoints import tokens
from exports import STYLES, write_export
from onnx import TensorProto, helper, numpy_helper
from onnx_models import CONFIGS, backends, through

from exo_kit.kit.llama.random_checkpoint import write_checkpoint
from exo_kit.kit.onnx import arena, export_graph, exported
from exo_kit.kit.onnx.providers import Provider
from exo_kit.kit.repository.facts import RepositoryError
from exo_kit.kit.repository.watched import FileChangedError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(made, CONFIGS["qwen2"])
    return made


def cached(plain, to):
    """A folder as the hub's cache has it: every file a link into blobs/, by its content's hash."""
    snapshot, blobs = to / "snapshots" / ("a" * 40), to / "blobs"
    blobs.mkdir(parents=True)
    for path in [path for path in plain.rglob("*") if path.is_file()]:
        name = hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, blobs / name)
        link = snapshot / path.relative_to(plain)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blobs / name, link.parent))
    return snapshot


def far_away(plain, to):
    """The weights on another disk, where only a link leads."""
    made = shutil.copytree(plain, to / "repo")
    for path in [path for path in made.rglob("*_data") if path.is_file()]:
        target = to / "disk" / "deep" / path.name
        target.parent.mkdir(parents=True)
        path.replace(target)
        path.symlink_to(target)
    return made


def linked(plain, to):
    """The folder itself is reached through a link."""
    (to / "link").symlink_to(plain, target_is_directory=True)
    return to / "link"


@pytest.mark.parametrize("place", [cached, far_away, linked])
@pytest.mark.parametrize("style", STYLES)
def test_an_export_runs_through_links_whole_and_cut(folder, tmp_path, style, place):
    write_export(folder, style, tmp_path / "plain")
    expected = through(backends(tmp_path / "plain"), tokens(9))
    place = place(tmp_path / "plain", tmp_path / "linked" if place is cached else tmp_path)
    for cuts in ((), (2,)):
        np.testing.assert_array_equal(through(backends(place, *cuts), tokens(9)), expected)


@pytest.fixture
def community(folder, tmp_path):
    """An export with its weights beside it, and its file."""
    return write_export(folder, "community", tmp_path / "export")


def edited(path, change):
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())


def to_place(name):
    def change(model):
        for weight in model.graph.initializer:
            for entry in weight.external_data:
                if entry.key == "location":
                    entry.value = name

    return change


@pytest.mark.parametrize("name", ["../model.onnx_data", "/etc/passwd", "a/../../b", "..\\b"])
def test_weights_in_another_folder_are_refused(community, name):
    edited(community, to_place(name))
    with pytest.raises(RepositoryError, match="which is not beside it"):
        backends(community.parent.parent)


def test_weights_that_are_not_there_are_fetched(community):
    (community.parent / "model.onnx_data").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.onnx_data is not there; model\.onnx has"):
        backends(community.parent.parent)


def test_weights_that_are_cut_off_under_a_loaded_export_are_a_sentence(community):
    (backend,) = backends(community.parent.parent)
    backend.step("request", tokens(3))
    os.truncate(community.parent / "model.onnx_data", 5000)
    with pytest.raises(FileChangedError, match="was written to after it was loaded"):
        backend.step("request", tokens(1))


def nodes(*made):
    return lambda model: model.graph.node.extend(made)


def nested(depth):
    graph = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "g", [], [])
    for n in range(depth):
        node = helper.make_node("If", ["a"], [f"c{n}"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "g", [], [])
    return graph.node[0]


def doubling(model):
    """Functions of two calls each: 2 ** 30 nodes."""
    for n in range(30):
        call = helper.make_node(f"f{n - 1}" if n else "Neg", ["a"], ["b"], domain="x" if n else "")
        call2 = helper.make_node(f"f{n - 1}" if n else "Neg", ["b"], ["c"], domain="x" if n else "")
        model.functions.append(
            helper.make_function("x", f"f{n}", ["a"], ["c"], [call, call2], model.opset_import)
        )
    model.graph.node.append(helper.make_node("f29", ["input_ids"], ["z"], domain="x"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (nodes(helper.make_node("Loop", ["", "a"], ["b"])), "has a Loop, which may never end"),
        (nodes(helper.make_node("Scan", ["a"], ["b"])), "has a Scan, which may never end"),
        (nodes(nested(8)), "more than 3 graphs in each other"),
        (doubling, "more than 200000 nodes"),
        (
            lambda m: m.functions.append(
                helper.make_function(
                    "x", "f", ["a"], ["b"], [helper.make_node("Scan", ["a"], ["b"])], []
                )
            ),
            "has a Scan",
        ),
    ],
    ids=["loop", "scan", "nested", "functions", "in a function"],
)
def test_a_graph_without_end_is_refused_and_the_next_is_served(community, folder, change, says):
    good = community.read_bytes()
    edited(community, change)
    with pytest.raises(RepositoryError, match=says):
        backends(community.parent.parent)
    community.write_bytes(good)
    assert through(backends(community.parent.parent), tokens(3)).shape[-1] == 61


def constant(model, name, values):
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))


def squared(model):
    """Constants that are multiplied with each other for minutes, if they are folded."""
    constant(model, "shape", np.array([3000, 3000]))
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["shape"], ["c0"]))
    for n in range(300):
        model.graph.node.insert(n + 1, helper.make_node("MatMul", [f"c{n}", "c0"], [f"c{n + 1}"]))
    model.graph.node.append(helper.make_node("ReduceSum", ["c300"], ["sum"], keepdims=0))
    spoil_logits(model, "sum")


def spoil_logits(model, name):
    """Let the logits depend on a value."""
    last = next(node for node in model.graph.node if "logits" in node.output)
    last.output[0] = "own"
    model.graph.node.append(helper.make_node("Add", ["own", name], ["logits"]))


def huge(model):
    """More memory than there is, by the prompt's length."""
    constant(model, "much", np.array([1 << 40]))
    model.graph.node.append(helper.make_node("Shape", ["input_ids"], ["lengths"]))
    model.graph.node.append(helper.make_node("Mul", ["lengths", "much"], ["shape"]))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["c"]))
    model.graph.node.append(helper.make_node("ReduceSum", ["c"], ["sum"], keepdims=0))
    spoil_logits(model, "sum")


def test_constants_are_not_folded_for_minutes_and_a_step_that_takes_them_is_ended(
    community, monkeypatch
):
    monkeypatch.setattr(exported, "run_seconds", lambda *_: 0.5)
    edited(community, squared)
    (backend,) = backends(community.parent.parent)
    with pytest.raises(RuntimeError, match="export takes longer than 0 s"):
        backend.step("request", tokens(3))


def test_memory_that_there_is_not_is_an_error_of_the_step(community):
    edited(community, huge)
    (backend,) = backends(community.parent.parent)
    with pytest.raises(RuntimeError, match="takes more memory than there is for it"):
        backend.step("request", tokens(3))


@pytest.mark.parametrize(("name", "short", "block"), [("CPU", 20, 60), ("MIGraphX", 60, 100)])
def test_a_client_of_a_short_prompt_is_told_before_it_leaves(name, short, block):
    provider = Provider(name, {})
    assert short <= exported.run_seconds(provider, 1) <= short + 1
    assert exported.run_seconds(provider, exported.BLOCK) == pytest.approx(block)
    assert exported.run_seconds(provider, 1 << 20) == exported.MOST_SECONDS


def test_an_exports_arrays_are_in_an_arena_with_an_end():
    options = exported.session_options(1)
    arena.bound(options)
    assert options.get_session_config_entry("session.use_env_allocators") == "1"
    assert 0 < arena.SHARE < 1


def test_a_graph_that_goes_in_a_circle_cant_be_cut(community):
    def change(model):
        node = next(n for n in model.graph.node if n.name.startswith("/model/layers.1/"))
        node.input[0] = node.output[0]
        del model.graph.value_info[:]

    edited(community, change)
    with pytest.raises(Exception, match=r"can't (be cut|run this graph)"):
        backends(community.parent.parent, 2)


@pytest.mark.parametrize("style", STYLES)
def test_what_exporters_leave_to_fold_is_folded(folder, tmp_path, style):
    path = write_export(folder, style, tmp_path)
    assert export_graph.folds(onnx.load(path, load_external_data=False))


@pytest.mark.parametrize(
    ("operator", "sizes", "folds"),
    [
        ("Cast", [1 << 28], True),
        ("Transpose", [1 << 28], True),
        ("Add", [200, 200], True),
        ("Add", [1 << 16, 1 << 16], False),
        ("MatMul", [1 << 24, 1 << 24], False),
        ("ConstantOfShape", [2], False),
        ("Expand", [1, 4], False),
        ("Sqrt", [1 << 20], False),
    ],
)
def test_which_constants_are_folded(operator, sizes, folds):
    weights = [
        TensorProto(name=f"w{n}", dims=[size], data_type=TensorProto.FLOAT)
        for n, size in enumerate(sizes)
    ]
    made = [helper.make_node(operator, [w.name for w in weights], ["y"])]
    model = helper.make_model(helper.make_graph(made, "g", [], [], weights))
    assert export_graph.folds(model) is folds


def test_casts_of_large_weights_one_behind_the_other_have_an_end():
    weight = TensorProto(name="w0", dims=[1 << 28], data_type=TensorProto.FLOAT)
    made = [helper.make_node("Cast", [f"w{n}"], [f"w{n + 1}"], to=1) for n in range(100)]
    assert not export_graph.folds(helper.make_model(helper.make_graph(made, "g", [], [], [weight])))


def test_a_file_that_no_model_has_is_not_read(tmp_path):
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 33)  # a hole
    with pytest.raises(RepositoryError, match="no ONNX model has more than 2 GB"):
        export_graph.read(path)
