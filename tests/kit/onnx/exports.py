"""Finished exports of a small checkpoint, made on the spot in the styles that exporters have."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exo_kit.kit.llama.config import Config
from exo_kit.kit.llama.rotation import frequencies
from exo_kit.kit.llama.weights import load_model
from exo_kit.kit.onnx.matrices import round_rows

Array = np.ndarray[Any, np.dtype[Any]]
STYLES = ("optimum", "community", "genai")
CONTRIB = "com.microsoft"


def write_export(folder: Path, style: str, to: Path, half: bool = False) -> Path:
    """Write the checkpoint in `folder` as an export of this style; return its file."""
    config = Config.from_folder(folder)
    writer = Writer(config, load_model(folder, config, 0, config.layers - 1), style, half)
    model = writer.model()
    to.mkdir(parents=True, exist_ok=True)
    if style == "genai":
        decoder = {"filename": "model.onnx", "head_size": config.head_dim}
        decoder["num_hidden_layers"] = config.layers
        about = {"decoder": decoder, "context_length": config.context_length}
        (to / "genai_config.json").write_text(json.dumps({"model": about}))
        path = to / "model.onnx"
    else:
        shutil.copy(folder / "config.json", to)
        path = to / ("onnx" if style == "community" else "") / "model.onnx"
    path.parent.mkdir(exist_ok=True)
    beside = {} if style == "optimum" else {"save_as_external_data": True, "size_threshold": 512}
    onnx.save(model, path, **beside, **({"location": "model.onnx_data"} if beside else {}))
    return path


class Writer:
    """Nodes with the names that exporters give them: "/model/layers.3/Add_7"."""

    def __init__(self, config: Config, weights: Any, style: str, half: bool) -> None:
        self.c, self.w, self.style = config, weights, style
        self.kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        self.plain = np.float16 if half else np.float32
        self.place = "/model"
        self.nodes: list[Any] = []
        self.weights: dict[str, Any] = {}
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def __getattr__(self, operator: str) -> Callable[..., str]:
        def node(*inputs: str, names: tuple[str, ...] = (), **attributes: Any) -> str:
            name = f"{self.place}/{operator}_{len(self.nodes)}"
            outputs = names or (f"{name}_output_0",)
            self.nodes.append(helper.make_node(operator, inputs, outputs, name=name, **attributes))
            return outputs[0]

        return node

    def const(self, values: Any, kind: Any = None) -> str:
        array = np.asarray(values, kind or self.plain)
        name = f"const_{len(self.weights)}"
        self.weights[name] = numpy_helper.from_array(array, name)
        return name

    def ints(self, *values: int) -> str:
        return self.const(values, np.int64)

    def input(self, name: str, kind: int, *shape: Any) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def model(self) -> Any:
        c, genai = self.c, self.style == "genai"
        ids = self.input("input_ids", TensorProto.INT64, "batch", "sequence")
        self.input("attention_mask", TensorProto.INT64, "batch", "total")
        if not genai:
            self.input("position_ids", TensorProto.INT64, "batch", "sequence")
        # onnxruntime-genai's builder gives the size of heads a name.
        size = "kv_cache_dim" if genai else c.head_dim
        shape = ("batch", c.kv_heads, "past", size)
        for n in range(c.layers):
            for what in ("key", "value"):
                self.input(f"past_key_values.{n}.{what}", self.kind, *shape)
                grown = (*shape[:2], "total", size)
                name = f"present.{n}.{what}"
                self.outputs.append(helper.make_tensor_value_info(name, self.kind, grown))
        x = self.Gather(self.const(self.w.embedding), ids)  # [1, S, D]
        self.genai_lengths() if genai else self.lengths()
        skip = None
        for n in range(c.layers):
            self.place = f"/model/layers.{n}"
            x, skip = self.genai_layer(x, skip, n) if genai else (self.layer(x, n), None)
        self.place = f"/model/layers.{c.layers}" if genai else "/model/norm"
        x = self.skip_norm(x, skip, self.w.norm)[0] if genai else self.norm(x, self.w.norm)
        self.place = "/lm_head"
        if self.style == "community":
            keep = self.input("num_logits_to_keep", TensorProto.INT64)
            begin = self.Unsqueeze(self.Neg(keep), self.ints(0))
            x = self.Slice(x, begin, self.ints(2**31), self.ints(1))
        logits = self.MatMul(x, self.const(self.w.head.T))
        self.Cast(logits, to=TensorProto.FLOAT, names=("logits",))
        value = helper.make_tensor_value_info(
            "logits", TensorProto.FLOAT, ("batch", "rows", c.vocab_size)
        )
        graph = helper.make_graph(
            self.nodes, "export", self.inputs, [value, *self.outputs], list(self.weights.values())
        )
        versions = [helper.make_opsetid("", 18), helper.make_opsetid(CONTRIB, 1)]
        return helper.make_model(graph, ir_version=9, opset_imports=versions)

    def lengths(self) -> None:
        """Mask and angles as optimum makes them: of the ids', layer 0's shapes, and positions."""
        one, zero = self.const(1, np.int64), self.const(0, np.int64)
        length = self.Gather(self.Shape("input_ids"), one)
        past = self.Gather(self.Shape("past_key_values.0.key"), self.const(2, np.int64))
        total = self.Add(past, length)
        queries = self.Unsqueeze(self.Range(past, total, one), self.ints(1))  # [S, 1]
        seen = self.LessOrEqual(self.Range(zero, total, one), queries)  # [S, T]
        self.mask = self.Where(seen, self.const(0), self.const(-np.inf))
        where = self.Unsqueeze(self.Cast("position_ids", to=TensorProto.FLOAT), self.ints(2))
        angles = self.Mul(where, self.const(frequencies(self.c)[None, None], np.float32))
        both = self.Unsqueeze(self.Concat(angles, angles, axis=2), self.ints(1))  # [1, 1, S, E]
        self.cos = self.Cast(self.Cos(both), to=self.kind)
        self.sin = self.Cast(self.Sin(both), to=self.kind)

    def layer(self, x: str, n: int) -> str:
        w, c = self.w.layers[n], self.c
        normed = self.norm(x, w["input_layernorm.weight"])
        q = self.rotated(self.heads(self.linear(normed, w, "self_attn.q_proj")))
        k = self.rotated(self.heads(self.linear(normed, w, "self_attn.k_proj")))
        v = self.heads(self.linear(normed, w, "self_attn.v_proj"))
        k = self.Concat(f"past_key_values.{n}.key", k, axis=2, names=(f"present.{n}.key",))
        v = self.Concat(f"past_key_values.{n}.value", v, axis=2, names=(f"present.{n}.value",))
        groups = self.const(np.repeat(np.arange(c.kv_heads), c.heads // c.kv_heads), np.int64)
        k, v = self.Gather(k, groups, axis=1), self.Gather(v, groups, axis=1)
        scores = self.MatMul(q, self.Transpose(k, perm=[0, 1, 3, 2]))
        scores = self.Add(self.Mul(scores, self.const(c.head_dim**-0.5)), self.mask)
        mixed = self.Transpose(self.MatMul(self.Softmax(scores, axis=-1), v), perm=[0, 2, 1, 3])
        mixed = self.Reshape(mixed, self.ints(0, 0, -1))
        x = self.Add(x, self.linear(mixed, w, "self_attn.o_proj"))
        return self.Add(x, self.mlp(self.norm(x, w["post_attention_layernorm.weight"]), w))

    def mlp(self, x: str, w: Any) -> str:
        gate = self.linear(x, w, "mlp.gate_proj")
        gate = self.Mul(gate, self.Sigmoid(gate))
        return self.linear(self.Mul(gate, self.linear(x, w, "mlp.up_proj")), w, "mlp.down_proj")

    def linear(self, x: str, w: Any, name: str) -> str:
        y = self.MatMul(x, self.const(w[f"{name}.weight"].T))
        return self.Add(y, self.const(w[f"{name}.bias"])) if f"{name}.bias" in w else y

    def heads(self, x: str) -> str:
        return self.Transpose(
            self.Reshape(x, self.ints(0, 0, -1, self.c.head_dim)), perm=[0, 2, 1, 3]
        )

    def rotated(self, x: str) -> str:
        half = self.c.head_dim // 2
        low = self.Slice(x, self.ints(0), self.ints(half), self.ints(3))
        high = self.Slice(x, self.ints(half), self.ints(2 * half), self.ints(3))
        turned = self.Concat(self.Neg(high), low, axis=3)
        return self.Add(self.Mul(x, self.cos), self.Mul(turned, self.sin))

    def norm(self, x: str, weight: Array) -> str:
        wide = self.Cast(x, to=TensorProto.FLOAT)
        squares = self.ReduceMean(self.Mul(wide, wide), self.ints(-1))
        scale = self.Sqrt(self.Add(squares, self.const(self.c.norm_eps, np.float32)))
        return self.Mul(self.Cast(self.Div(wide, scale), to=self.kind), self.const(weight))

    def genai_lengths(self) -> None:
        """What GroupQueryAttention asks for, of the mask alone."""
        filled = self.ReduceSum("attention_mask", self.ints(1), keepdims=0)
        newest = self.Sub(filled, self.ints(1))
        total = self.Gather(self.Shape("attention_mask"), self.const(1, np.int64))
        self.newest = self.Cast(newest, to=TensorProto.INT32)
        self.total = self.Cast(total, to=TensorProto.INT32)
        angles = np.outer(np.arange(self.c.context_length), frequencies(self.c))
        self.cos, self.sin = self.const(np.cos(angles)), self.const(np.sin(angles))

    def genai_layer(self, x: str, skip: str | None, n: int) -> tuple[str, str]:
        """Two tensors go on: the sum before the MLP, and the MLP's."""
        w, c = self.w.layers[n], self.c
        normed, x = self.skip_norm(x, skip, w["input_layernorm.weight"])
        three = [self.small(normed, w, f"self_attn.{part}_proj") for part in "qkv"]
        past = f"past_key_values.{n}.key", f"past_key_values.{n}.value"
        joined = self.Concat(*three, axis=2)  # the builder's matrix is one; inputs are left out
        mixed = self.GroupQueryAttention(
            *(joined, "", "", *past, self.newest, self.total, self.cos, self.sin),
            names=(f"mixed.{n}", f"present.{n}.key", f"present.{n}.value"),
            domain=CONTRIB,
            num_heads=c.heads,
            kv_num_heads=c.kv_heads,
            do_rotary=1,
        )
        mixed = self.small(mixed, w, "self_attn.o_proj")
        normed, x = self.skip_norm(x, mixed, w["post_attention_layernorm.weight"])
        return x, self.mlp(normed, w)

    def small(self, x: str, w: Any, name: str) -> str:
        """A matrix of 8 bits; a bias stays beside it."""
        numbers, scales = round_rows(w[f"{name}.weight"], 8)
        y = self.MatMulNBits(
            *(x, self.const(numbers, np.uint8), self.const(scales)),
            domain=CONTRIB,
            K=w[f"{name}.weight"].shape[1],
            N=len(numbers),
            bits=8,
            block_size=32,
            accuracy_level=4,
        )
        return self.Add(y, self.const(w[f"{name}.bias"])) if f"{name}.bias" in w else y

    def skip_norm(self, x: str, skip: str | None, weight: Array) -> tuple[str, str]:
        if skip is None:
            normed = self.SimplifiedLayerNormalization(
                x, self.const(weight), epsilon=self.c.norm_eps
            )
            return normed, x
        names = tuple(f"{self.place}/skip_{len(self.nodes)}/output_{n}" for n in (0, 3))
        self.SkipSimplifiedLayerNormalization(
            *(x, skip, self.const(weight)),
            names=(names[0], "", "", names[1]),
            domain=CONTRIB,
            epsilon=self.c.norm_eps,
        )
        return names
