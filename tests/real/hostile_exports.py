"""Writes finished exports, one that is sound and one whose graph is an attack.

Run by a Python that has the plugin exo_onnx: GRAPH FOLDER [LAYERS].
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exo_onnx
import numpy as np
import onnx
from exo_onnx.kit.llama.random_checkpoint import DEFAULT, write_checkpoint
from onnx import helper, numpy_helper

# The writer of exports is one of the kit's tests.
sys.modules["exo_kit"] = exo_onnx
sys.path.insert(0, str(Path(__file__).parents[1] / "kit" / "onnx"))
from exports import write_export  # noqa: E402

SQUARED = 300  # products of constants


def constant(model: Any, name: str, *values: int) -> str:
    """Whole numbers that are in the model."""
    model.graph.initializer.append(numpy_helper.from_array(np.array(values), name))
    return name


def spoil_logits(model: Any, name: str) -> None:
    """Let the logits depend on the sum of a value."""
    model.graph.node.append(helper.make_node("ReduceSum", [name], ["sum"], keepdims=0))
    last = next(node for node in model.graph.node if "logits" in node.output)
    last.output[0] = "own"
    model.graph.node.append(helper.make_node("Add", ["own", "sum"], ["logits"]))


def sound(model: Any) -> None:
    """As it is."""


def loop(model: Any) -> None:
    """A Loop that nothing ends."""
    model.graph.node.append(helper.make_node("Loop", ["", "a"], ["b"]))


def nested(model: Any) -> None:
    """Eight Ifs in each other, each twice."""
    graph = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "g", [], [])
    for n in range(8):
        node = helper.make_node("If", ["a"], [f"c{n}"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "g", [], [])
    model.graph.node.append(graph.node[0])


def memory(model: Any, count: int = 1_100_000_000) -> None:
    """A constant of 4.4 GB."""
    shape = constant(model, "shape", count)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", [shape], ["c0"]))
    spoil_logits(model, "c0")


def all_memory(model: Any) -> None:
    """A constant of 4.4 TB."""
    memory(model, 1_100_000_000_000)


def folding(model: Any) -> None:
    """Constants that are multiplied with each other for minutes."""
    shape = constant(model, "shape", 3000, 3000)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", [shape], ["c0"]))
    for n in range(SQUARED):
        model.graph.node.insert(n + 1, helper.make_node("MatMul", [f"c{n}", "c0"], [f"c{n + 1}"]))
    spoil_logits(model, f"c{SQUARED}")


GRAPHS: dict[str, Callable[[Any], None]] = {
    each.__name__: each for each in (sound, loop, nested, memory, all_memory, folding)
}


def main(graph: str, folder: Path, layers: str = "4") -> None:
    """Write it, and remove what was there."""
    shutil.rmtree(folder, ignore_errors=True)
    checkpoint = folder.with_name("checkpoint")
    write_checkpoint(checkpoint, DEFAULT | {"num_hidden_layers": int(layers)})
    path = write_export(checkpoint, "optimum", folder)
    for each in checkpoint.glob("*.json"):
        shutil.copy(each, folder)
    model = onnx.load(path)
    GRAPHS[graph](model)
    onnx.save(model, path)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
