"""The Llama family as an ONNX graph: a line a node, with the shapes beside it.

B  requests                           S  positions of this step of each
D  hidden size                        V  vocabulary
H  query heads   K  key-value heads   F  intermediate size    room  positions that a cache holds
E  head size

A value is its name. Matrices are [out, in] as in the checkpoint; those that read the same input are
one (kit/onnx/matrices.py joins them), since each product waits for all threads. No weight is in the
model: the session is given them by name.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from onnx import ModelProto, StringStringEntryProto, TensorProto, ValueInfoProto, helper

from ..llama.config import Config
from ..repository.facts import RepositoryError

CONTRIB = "com.microsoft"
# Numbers of a matrix's row that share a scale. Longer blocks are faster at 8 bits and lose three
# times as much: the step's own numbers are rounded in blocks of the same length.
BLOCKS = {4: 32, 8: 32}
HEAD_STEP = 16  # GroupQueryAttention turns heads in pieces of so many numbers
OPSET, IR = 21, 10  # not the newest: every runtime that the plugin admits reads them


class Kind(NamedTuple):
    """bits: of a matrix's numbers, 4 or 8 with scales, 16 or 32 plain. half: float16 between."""

    bits: int
    half: bool


def build(config: Config, first: int, last: int, kind: Kind) -> ModelProto:
    """Layers `first` to `last`, both included: x [B, S, D] to y, hidden states [B, S, D] or, behind
    the last layer, the logits of the last position [B, 1, V].

    keys.N and values.N are read and written in place; `newest` [B] is each request's last position
    with this step, and `total` one more than the greatest of them. Raises RepositoryError.
    """
    if config.head_dim % HEAD_STEP:
        raise RepositoryError(
            f"head_dim is {config.head_dim}, and ONNX Runtime's GroupQueryAttention takes only "
            f"multiples of {HEAD_STEP}"
        )
    g, c = Graph(config, kind), config
    x = g.Cast(g.input("x", TensorProto.FLOAT, "B", "S", c.hidden_size), to=g.float)  # [B, S, D]
    g.input("newest", TensorProto.INT32, "B")
    g.input("total", TensorProto.INT32)
    g.weight("cos", c.context_length, c.head_dim // 2)
    g.weight("sin", c.context_length, c.head_dim // 2)
    for n in range(first, last + 1):
        x = layer(g, x, n)  # [B, S, D]
    size = c.hidden_size
    if last == c.layers - 1:
        x = g.Slice(x, g.constant("-1", -1), g.constant("end", 2**31), g.constant("1", 1))
        x = rms_norm(g, x, "model.norm", c.hidden_size)  # [B, 1, D]
        x = linear(g, x, head(c), c.hidden_size, c.vocab_size)  # [B, 1, D] -> [B, 1, V]
        size = c.vocab_size
    g.Cast(x, to=TensorProto.FLOAT, names=(g.output("y", TensorProto.FLOAT, "B", "rows", size),))
    return g.model()


def layer(g: "Graph", x: str, n: int) -> str:
    """[B, S, D] -> [B, S, D]."""
    name, hidden = f"model.layers.{n}", g.config.hidden_size
    normed = rms_norm(g, x, f"{name}.input_layernorm", hidden)  # [B, S, D]
    x = g.Add(x, attention(g, normed, f"{name}.self_attn", n))  # [B, S, D]
    normed = rms_norm(g, x, f"{name}.post_attention_layernorm", hidden)  # [B, S, D]
    return g.Add(x, mlp(g, normed, f"{name}.mlp"))  # [B, S, D]


def attention(g: "Graph", x: str, name: str, n: int) -> str:
    """Grouped-query attention with rotary position embedding, [B, S, D] -> [B, S, D]."""
    c, hidden = g.config, g.config.hidden_size
    queries, pairs = c.heads * c.head_dim, c.kv_heads * c.head_dim
    qkv = linear(g, x, f"{name}.qkv_proj", hidden, queries + 2 * pairs, c.qkv_bias)
    three = (qkv, "", "")  # [B, S, H*E + 2*K*E]
    if c.qk_norm:
        sizes = g.constant("qkv sizes", queries, pairs, pairs)
        q, k, v = (f"{part}.{n}" for part in "qkv")
        g.Split(qkv, sizes, axis=2, names=(q, k, v))  # -> [B, S, H*E], [B, S, K*E] twice
        q = norm_heads(g, q, f"{name}.q_norm", queries)  # [B, S, H*E]
        k = norm_heads(g, k, f"{name}.k_norm", pairs)  # [B, S, K*E]
        three = (q, k, v)
    room = (g.float, "B", c.kv_heads, "room", c.head_dim)
    past = g.input(f"keys.{n}", *room), g.input(f"values.{n}", *room)  # [B, K, room, E] each
    grown = g.output(f"new_keys.{n}", *room), g.output(f"new_values.{n}", *room)
    mixed = g.GroupQueryAttention(
        *(*three, *past, "newest", "total", "cos", "sin"),
        names=(f"mixed.{n}", *grown),
        domain=CONTRIB,
        num_heads=c.heads,
        kv_num_heads=c.kv_heads,
        do_rotary=1,
        local_window_size=c.windows[n] or -1,
    )  # [B, S, H*E]
    return linear(g, mixed, f"{name}.o_proj", queries, hidden, c.output_bias)  # [B, S, D]


def mlp(g: "Graph", x: str, name: str) -> str:
    """SwiGLU, [B, S, D] -> [B, S, D]."""
    hidden, inner, bias = g.config.hidden_size, g.config.intermediate_size, g.config.mlp_bias
    both = linear(g, x, f"{name}.gate_up_proj", hidden, 2 * inner, bias)  # [B, S, D] -> [B, S, 2F]
    gate, up = f"{name}.gate", f"{name}.up"
    g.Split(both, g.constant("gate up sizes", inner, inner), axis=2, names=(gate, up))
    gate = g.Mul(gate, g.Sigmoid(gate))  # [B, S, F]
    return linear(g, g.Mul(gate, up), f"{name}.down_proj", inner, hidden, bias)  # [B, S, D]


def linear(g: "Graph", x: str, name: str, inputs: int, outputs: int, bias: bool = False) -> str:
    """[B, S, in] -> [B, S, out], by a matrix of floats or one of small numbers with scales."""
    matrix, bits = f"{name}.weight", bits_of(name, g.config, g.kind)
    if bits < 16:
        size = BLOCKS[bits]
        blocks = -(-inputs // size)
        y = g.MatMulNBits(
            x,
            g.weight(matrix, outputs, blocks, size * bits // 8, kind=TensorProto.UINT8),
            g.weight(f"{name}.scales", outputs, blocks),
            domain=CONTRIB,
            K=inputs,
            N=outputs,
            bits=bits,
            block_size=size,
            accuracy_level=4,  # x is rounded to 8 bits
        )  # [B, S, in] @ [in, out] -> [B, S, out]
    else:
        w = g.weight(matrix, outputs, inputs)
        y = g.FusedMatMul(x, w, domain=CONTRIB, transB=1)  # [B, S, in] @ [in, out] -> [B, S, out]
    return g.Add(y, g.weight(f"{name}.bias", outputs)) if bias else y  # [B, S, out] + [out]


def rms_norm(g: "Graph", x: str, name: str, size: int) -> str:
    """Scale the last axis to a mean square of 1."""
    weight = g.weight(f"{name}.weight", size)
    return g.SimplifiedLayerNormalization(x, weight, epsilon=g.config.norm_eps)


def norm_heads(g: "Graph", x: str, name: str, size: int) -> str:
    """The norm of each head by itself, [B, S, heads*E] -> [B, S, heads*E]."""
    head_dim = g.config.head_dim
    heads = g.Reshape(x, g.constant("heads", 0, 0, -1, head_dim))  # [B, S, heads, E]
    normed = rms_norm(g, heads, name, head_dim)  # [B, S, heads, E]
    return g.Reshape(normed, g.constant(f"row.{size}", 0, 0, size))  # [B, S, heads*E]


def head(config: Config) -> str:
    """The matrix that makes logits."""
    return "model.embed_tokens" if config.tied else "lm_head"


def bits_of(name: str, config: Config, kind: Kind) -> int:
    """Bits of a matrix: the head has 8 where others have 4, as much of the loss is there."""
    return 8 if kind.bits == 4 and name == head(config) else kind.bits


class Graph:
    """Nodes in the order of their calls: g.Add(x, y) adds one and gives its output's name."""

    def __init__(self, config: Config, kind: Kind) -> None:
        self.config, self.kind = config, kind
        self.float = TensorProto.FLOAT16 if kind.half else TensorProto.FLOAT
        self.nodes: list[Any] = []
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[ValueInfoProto] = []
        self.weights: dict[str, TensorProto] = {}

    def __getattr__(self, operator: str) -> Callable[..., str]:
        def node(*inputs: str, names: tuple[str, ...] = (), **attributes: Any) -> str:
            outputs = names or (f"{operator}.{len(self.nodes)}",)
            self.nodes.append(helper.make_node(operator, inputs, outputs, **attributes))
            return outputs[0]

        return node

    def input(self, name: str, kind: int, *shape: int | str) -> str:
        """A tensor that each step is given."""
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, kind: int, *shape: int | str) -> str:
        """A tensor that each step gives."""
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def weight(self, name: str, *shape: int, kind: int | None = None) -> str:
        """What the session is given by name."""
        self.weights[name] = TensorProto(
            name=name,
            dims=shape,
            data_type=kind or self.float,
            data_location=TensorProto.EXTERNAL,
            external_data=[StringStringEntryProto(key="location", value="given")],
        )
        return name

    def constant(self, name: str, *values: int) -> str:
        """Whole numbers that are in the model."""
        self.weights[name] = helper.make_tensor(name, TensorProto.INT64, (len(values),), values)
        return name

    def model(self) -> ModelProto:
        """What was made."""
        weights = list(self.weights.values())
        graph = helper.make_graph(self.nodes, "layers", self.inputs, self.outputs, weights)
        versions = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        return helper.make_model(graph, ir_version=IR, opset_imports=versions)
