"""Cuts a finished export by layers: a part has the nodes of its layers and of what they are given.

A node's layer is in its name, "/model/layers.3/mlp/…". What crosses from one part to the next are
the tensors that are made below the cut, are read above it and depend on the tokens' values; all
others (masks, angles, lengths) each part makes for itself.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

LAYER = re.compile(r"layers[._](\d+)[/.]")
PAST = re.compile(r"past_key_values\.(\d+)\.(key|value)")
IDS, MASK, POSITIONS = "input_ids", "attention_mask", "position_ids"
KEPT, BRANCH = "num_logits_to_keep", "use_cache_branch"
KNOWN = {IDS, MASK, POSITIONS, KEPT, BRANCH}


class CutError(ValueError):
    """This export can't be cut; it runs whole, on one node."""


@dataclass(frozen=True)
class Part:
    """Some layers of an export. x: the tensors that come from below; y: those that go up."""

    model: ModelProto
    x: tuple[str, ...]
    y: tuple[str, ...]


def layers_of(graph: GraphProto) -> int:
    """How many layers have a cache."""
    return len({match[1] for value in graph.input if (match := PAST.fullmatch(value.name))})


def part_of(model: ModelProto, first: int, last: int) -> Part:
    """Layers `first` to `last` of an export. Raises CutError."""
    cutter = Cutter(model)
    x = cutter.crossing(first) if first else ()
    y = cutter.crossing(last + 1) if last + 1 < cutter.total else ("logits",)
    return Part(cutter.extracted(first, last, x, y), x, y)


class Cutter:
    """What is known of an export's graph."""

    def __init__(self, model: ModelProto) -> None:
        self._model, self._graph = model, model.graph
        self.total = layers_of(self._graph)
        self._check()
        # "" is an input that is left out, or an output that nobody wants.
        self._makers = {o: node for node in self._graph.node for o in node.output if o}
        self._levels = self._levelled()
        self._valued = self._depend_on_values()

    def _check(self) -> None:
        for node in self._graph.node:
            if any(attribute.HasField("g") for attribute in node.attribute):
                raise CutError(f"it has a {node.op_type} with graphs of its own")
        named = {n for node in self._graph.node if (n := self._own(node)) is not None}
        if missing := set(range(self.total)) - named:
            raise CutError(f"no node's name says that it is of layer {min(missing)}")

    def _own(self, node: NodeProto) -> int | None:
        """The layer that a node's name says; what is behind the last belongs to it."""
        match = LAYER.search(node.name)
        return min(int(match[1]), self.total - 1) if match else None

    def _levelled(self) -> dict[str, int]:
        """Each tensor's layer: that of its node, and never below what the node reads."""
        levels: dict[str, int] = {}
        for node in self._graph.node:
            below = max((levels.get(name, -1) for name in node.input), default=-1)
            own = self._own(node)
            for name in filter(None, node.output):
                levels[name] = below if own is None else max(own, below)
        return levels

    def _depend_on_values(self) -> set[str]:
        """The tensors that depend on what the tokens are, not only on how many there are."""
        valued = {IDS} | {v.name for v in self._graph.input if PAST.fullmatch(v.name)}
        for node in self._graph.node:
            if node.op_type != "Shape" and any(name in valued for name in node.input):
                valued.update(filter(None, node.output))
        return valued

    def crossing(self, layer: int) -> tuple[str, ...]:
        """What is made below a layer, read from it on, and depends on the tokens."""
        tensors = {
            name
            for node in self._graph.node
            if max(self._levels.get(output, -1) for output in node.output) >= layer
            and node.op_type != "Shape"
            for name in node.input
            if self._levels.get(name, layer) < layer and name in self._valued
        }
        return tuple(sorted(tensors))

    def extracted(self, first: int, last: int, x: Iterable[str], y: Iterable[str]) -> ModelProto:
        """The model that makes y and its layers' caches of x and its layers' caches."""
        graph, x, y = self._graph, tuple(x), tuple(y)
        mine = range(first, last + 1)
        outputs = [v for v in graph.output if (n := _number(v.name)) is None or n in mine]
        outputs = [v for v in outputs if _number(v.name) is not None]
        targets = [*y, *(value.name for value in outputs)]
        nodes = self._needed(targets, set(x), first, last)
        read = {name for node in nodes for name in node.input}
        inputs = [v for v in graph.input if v.name in read and v.name not in x]
        inputs += [_dynamic(name, self._type(name)) for name in x]
        if foreign := [v.name for v in inputs if (n := _number(v.name)) not in (None, *mine)]:
            raise CutError(f"layers {first} to {last} read {foreign[0]}")
        made = {value.name: value for value in graph.output}
        results = [made.get(name) or _dynamic(name, self._type(name)) for name in y]
        weights = [weight for weight in graph.initializer if weight.name in read]
        cut = helper.make_graph(nodes, "layers", inputs, [*results, *outputs], weights)
        model = ModelProto()
        model.CopyFrom(_without_graph(self._model))
        model.graph.CopyFrom(cut)
        return model

    def _needed(self, targets: list[str], x: set[str], first: int, last: int) -> list[NodeProto]:
        """The nodes that these tensors come from, in order; lengths are those of own caches."""
        keep, waiting = set[int](), list(targets)
        swapped: dict[int, NodeProto] = {}
        while waiting:
            name = waiting.pop()
            node = self._makers.get(name)
            if name in x or node is None or id(node) in keep:
                continue
            keep.add(id(node))
            n = _number(node.input[0]) if node.op_type == "Shape" else None
            if n is None or first <= n <= last:
                waiting += node.input
                continue
            swapped[id(node)] = NodeProto()  # any layer's cache has the same length
            swapped[id(node)].CopyFrom(node)
            swapped[id(node)].input[0] = node.input[0].replace(f".{n}.", f".{first}.")
        return [swapped.get(id(node), node) for node in self._graph.node if id(node) in keep]

    def _type(self, name: str) -> int:
        """A tensor's type: that of what it is made of, as far as nothing casts it."""
        known = {w.name: w.data_type for w in self._graph.initializer}
        for value in (*self._graph.input, *self._graph.value_info, *self._graph.output):
            known[value.name] = value.type.tensor_type.elem_type
        floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
        for _ in range(len(self._graph.node) + 1):  # a graph may go in a circle
            if known.get(name) in floats:
                return int(known[name])
            node = self._makers.get(name)
            if node is None:
                raise CutError(f"the type of {name} is not known")
            casts = [a.i for a in node.attribute if node.op_type == "Cast" and a.name == "to"]
            if casts:
                return int(casts[0])
            known_inputs = [n for n in node.input if known.get(n) in floats]
            name = known_inputs[0] if known_inputs else node.input[0]
        raise CutError(f"the type of {name} is not known")


def _number(name: str) -> int | None:
    """The layer of a cache."""
    match = re.fullmatch(r"(?:past_key_values|present)\.(\d+)\.(?:key|value)", name)
    return int(match[1]) if match else None


def _dynamic(name: str, kind: int) -> ValueInfoProto:
    """A tensor of [1, S, anything]."""
    return helper.make_tensor_value_info(name, kind, ["batch", "sequence", None])


def _without_graph(model: ModelProto) -> ModelProto:
    """The versions, functions and domains of a model."""
    rest = ModelProto()
    for field in ("ir_version", "producer_name"):
        setattr(rest, field, getattr(model, field))
    rest.opset_import.extend(model.opset_import)
    rest.functions.extend(model.functions)
    return rest
