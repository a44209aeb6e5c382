"""A checkpoint's tensors, as the tests of its files read and change them."""

import json

import numpy as np
import safetensors
from checkpoints import LAYERS

from exo_kit.kit.llama.config import Config
from exo_kit.kit.llama.weights import load_model


def load(folder, start=0, end=LAYERS - 1):
    return load_model(folder, Config.from_folder(folder), start, end)


def of_the_library(path):
    """Every tensor of a file as the safetensors library has it, as float32."""
    tensors = {}
    for name, tensor in safetensors.deserialize(path.read_bytes()):
        data = bytes(tensor["data"])
        if tensor["dtype"] == "BF16":  # the upper half of a float32
            flat = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
        else:
            flat = np.frombuffer(data, {"F32": "<f4", "F16": "<f2"}[tensor["dtype"]])
        tensors[name] = flat.astype(np.float32).reshape(tensor["shape"])
    return tensors


def all_tensors(model):
    """A model's tensors, by the names that they have in the file."""
    tensors = {
        f"model.layers.{model.start + n}.{name}": tensor
        for n, layer in enumerate(model.layers)
        for name, tensor in layer.items()
    }
    tensors |= {"model.embed_tokens.weight": model.embedding, "model.norm.weight": model.norm}
    return tensors | ({} if model.config.tied else {"lm_head.weight": model.head})


def rewrite(path, header=None, data=None, padding=b""):
    """Change a file's header, or its data."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    made = json.loads(content[8 : 8 + length])
    if header:
        header(made)
    text = json.dumps(made).encode() + padding
    rest = content[8 + length :] if data is None else data
    path.write_bytes(len(text).to_bytes(8, "little") + text + rest)


def write_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
