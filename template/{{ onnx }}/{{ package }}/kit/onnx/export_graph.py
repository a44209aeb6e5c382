"""A finished export's graph, which is a stranger's: read and bounded before ONNX Runtime sees it.

What is refused here would take all memory or never end; what only might is not folded at the load
(`folds`), and is bounded at each step by time (exported.py) and memory (arena.py).
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from ..repository.facts import RepositoryError
from .cut import IDS, KNOWN, PAST

LARGEST_FILE = (1 << 31) - 1  # bytes; protobuf reads no more
MOST_NODES = 200_000  # with those of functions at each call; the largest published export has 9,000
MOST_CALLS = 20  # of functions in each other
DEEPEST = 3  # graphs in each other; optimum's merged exports have 2
LOOPS = ("Loop", "Scan", "SequenceMap")
# Numbers of constants that ONNX Runtime may fold at a load.
FEW = 1 << 16
SHAPE_KEEPING = ("Cast", "Identity", "Neg", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
GROWING = ("ConstantOfShape", "Expand", "EyeLike", "OneHot", "Pad", "Range", "Resize", "Tile")


def read(path: Path) -> ModelProto:
    """The graph without the weights that lie beside it. Raises RepositoryError."""
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise RepositoryError(f"{path} has {size} bytes; no ONNX model has more than 2 GB")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own kinds
        raise RepositoryError(
            f"{path} is no ONNX model that can be read ({error}); download it again"
        ) from error
    _refuse_endless(model, path)
    _refuse_foreign(model, path)
    return model


def _refuse_endless(model: ModelProto, path: Path) -> None:
    """Loops, and so much that it would as well have no end."""
    costs = _costs(model)
    count = 0
    graphs = [(list(model.graph.node), 1)] + [(list(f.node), 1) for f in model.functions]
    while graphs:
        nodes, depth = graphs.pop()
        for node in nodes:
            count += costs.get((node.domain, node.op_type), 1)
            if node.op_type in LOOPS:
                raise RepositoryError(f"{path} has a {node.op_type}, which may never end")
            inner = [list(graph.node) for graph in _inner(node)]
            if inner and depth == DEEPEST:
                raise RepositoryError(f"{path} has more than {DEEPEST} graphs in each other")
            graphs += [(graph, depth + 1) for graph in inner]
        if count > MOST_NODES:
            raise RepositoryError(f"{path} has more than {MOST_NODES} nodes; no model has")


def _costs(model: ModelProto) -> dict[tuple[str, str], int]:
    """How many nodes a call of each of a model's functions becomes, up to MOST_NODES."""
    costs = {(f.domain, f.name): 1 for f in model.functions}
    for _ in range(min(len(costs), MOST_CALLS) + 1):  # a call deeper each time, as far as there are
        before = dict(costs)
        for f in model.functions:
            count = sum(costs.get((n.domain, n.op_type), 1) for n in f.node)
            costs[f.domain, f.name] = min(count, MOST_NODES + 1)
        if costs == before:
            return costs
    return dict.fromkeys(costs, MOST_NODES + 1)


def _refuse_foreign(model: ModelProto, path: Path) -> None:
    """What is compiled for one device or one length, or wants what nobody here knows."""
    if any(node.op_type == "EPContext" for node in model.graph.node):
        raise RepositoryError(f"{path} was compiled for one device (EPContext); take the plain one")
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    names = [value.name for value in inputs]
    foreign = [name for name in names if name not in KNOWN and not PAST.fullmatch(name)]
    if foreign or IDS not in names or not any(map(PAST.fullmatch, names)):
        what = f"asks for {', '.join(foreign[:5])}" if foreign else "has no input_ids and caches"
        raise RepositoryError(
            f"{path} {what}; an export is wanted with input_ids, attention_mask, position_ids and "
            "past_key_values.N.key and .value, as optimum and onnxruntime-genai make them"
        )
    ids = next(value for value in inputs if value.name == IDS)
    if not ids.type.tensor_type.shape.dim:
        raise RepositoryError(f"{path} says no shape of input_ids, which is [1, S]")
    if ids.type.tensor_type.shape.dim[-1].HasField("dim_value"):
        raise RepositoryError(f"{path} takes prompts of one length only; take one with any length")


def locate_weights(model: ModelProto, path: Path) -> tuple[Path, list[Path]]:
    """Let every weight outside the model say where its file really is; their folder, and the files.

    ONNX Runtime follows no link out of a model's folder, and in the hub's cache each file is a link
    into blobs/. Raises FileNotFoundError, RepositoryError.
    """
    places: dict[str, Path] = {}
    outside = [w for w in _tensors(model.graph) if w.data_location == TensorProto.EXTERNAL]
    for weight in outside:
        for entry in weight.external_data:
            if entry.key == "location" and entry.value not in places:
                places[entry.value] = _place(entry.value, path)
    folder = path.resolve().parent
    if places:
        folder = Path(os.path.commonpath([place.parent for place in places.values()]))
    for weight in outside:
        for entry in weight.external_data:
            if entry.key == "location":
                entry.value = places[entry.value].relative_to(folder).as_posix()
    return folder, list(places.values())


def _place(location: str, path: Path) -> Path:
    """A weights file beside a model: a link is the user's or the hub's, another folder is not."""
    if ".." in PurePosixPath(location).parts or Path(location).is_absolute() or "\\" in location:
        raise RepositoryError(f"{path} has weights in {location!r}, which is not beside it")
    place = path.parent / location
    if not place.is_file():
        raise FileNotFoundError(f"{place} is not there; {path.name} has weights in it")
    return place.resolve()


def vocabulary(model: ModelProto) -> int | None:
    """How many rows the embedding has: the matrix that input_ids are looked up in."""
    sizes = {weight.name: list(weight.dims) for weight in model.graph.initializer}
    for node in model.graph.node:
        if IDS in node.input:
            for name in node.input:
                if len(sizes.get(name, ())) > 1:
                    return int(sizes[name][0])
    return None


def folds(model: ModelProto) -> bool:
    """Whether ONNX Runtime may compute with constants at the load, where nothing can stop it.

    Counts the numbers that this makes at most: large ones are only cast and reshaped.
    """
    sizes = {weight.name: math.prod(weight.dims) for weight in model.graph.initializer}
    most, total = 16 * (sum(sizes.values()) + FEW), 0
    for node in model.graph.node:
        names = [name for name in node.input if name]
        if node.op_type == "Constant":
            size = sum(math.prod(a.t.dims) or 1 for a in node.attribute)
        elif not names or any(name not in sizes for name in names):
            if names or node.op_type.startswith("Random"):
                continue
            return False
        elif node.op_type in SHAPE_KEEPING:
            size = max(sizes[name] for name in names)
        else:
            size = math.prod(max(1, sizes[name]) for name in names)
            if node.op_type in GROWING or size > FEW or any(_inner(node)):
                return False
        total += size
        if total > most:
            return False
        sizes |= dict.fromkeys(filter(None, node.output), size)
    return True


def _inner(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs of a node, as an If has."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH or attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _tensors(graph: GraphProto) -> Iterator[Any]:
    """Every tensor of a graph and of those in it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for inner in _inner(node):
            yield from _tensors(inner)
