"""Checkpoints of random weights, as a Hugging Face folder: nothing to download."""

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from .config import Config
from .llama import Array
from .weights import INDEX, SINGLE, Shape, layer_shapes

END = 256  # the token after the 256 bytes

# A Llama that is small enough to answer at once.
DEFAULT: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 257,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": END,
}

CHAT_TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_checkpoint(
    folder: Path,
    config: dict[str, Any] = DEFAULT,
    *,
    seed: int = 0,
    dtype: str = "F32",
    files: int = 1,
) -> None:
    """Write what a published model has: config.json, weights (F32, F16 or BF16), tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    read = Config.from_dict(config)
    _write_json(folder / "config.json", config)
    _write_tokenizer(folder)
    shapes = list(tensor_shapes(read).items())
    rng = np.random.default_rng(seed)
    if files == 1:
        _write_tensors(folder / SINGLE, shapes, read, rng, dtype)
        return
    homes: dict[str, str] = {}
    for n in range(files):
        part = shapes[n * len(shapes) // files : (n + 1) * len(shapes) // files]
        name = f"model-{n + 1:05}-of-{files:05}.safetensors"
        _write_tensors(folder / name, part, read, rng, dtype)
        homes |= dict.fromkeys((tensor for tensor, _ in part), name)
    size = sum(prod(shape) for _, shape in shapes) * _itemsize(dtype)
    _write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": homes})


def tensor_shapes(config: Config) -> dict[str, Shape]:
    """Every tensor of a checkpoint, in the order of the computation."""
    matrix = (config.vocab_size, config.hidden_size)
    shapes: dict[str, Shape] = {"model.embed_tokens.weight": matrix}
    for n in range(config.layers):
        shapes |= {f"model.layers.{n}.{k}": shape for k, shape in layer_shapes(config).items()}
    shapes["model.norm.weight"] = (config.hidden_size,)
    return shapes if config.tied else shapes | {"lm_head.weight": matrix}


def _write_tensors(
    path: Path,
    shapes: list[tuple[str, Shape]],
    config: Config,
    rng: np.random.Generator,
    dtype: str,
) -> None:
    """One safetensors file, a tensor at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes:
        begin, end = end, end + prod(shape) * _itemsize(dtype)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the data is aligned
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes:
            for piece in _draw(name, shape, config, rng):
                _write_numbers(file, piece, dtype)


def _draw(name: str, shape: Shape, config: Config, rng: np.random.Generator) -> Iterator[Array]:
    """A tensor's numbers, scaled so that activations stay near 1 and logits have no near ties."""
    if len(shape) == 1:
        around = 0.0 if name.endswith("bias") else 1.0
        yield (around + 0.1 * rng.standard_normal(shape, np.float32)).astype(np.float32)
        return
    scale = np.float32(3.0 if "layers" not in name else 1.0) / np.float32(shape[1] ** 0.5)
    for begin in range(0, shape[0], 4096):
        rows = min(4096, shape[0] - begin)
        piece = scale * rng.standard_normal((rows, shape[1]), np.float32)  # [rows, in]
        if name == "lm_head.weight" and shape[0] == END + 1:
            # Bytes that a terminal could take for commands never win.
            piece[:32] = piece[127:END] = 0
        yield piece


def _write_numbers(file: IO[bytes], numbers: Array, dtype: str) -> None:
    """float32 as the file's dtype; NumPy has no bfloat16, the upper half of a float32."""
    if dtype == "BF16":
        rounded = numbers.view(np.uint32) + np.uint32(0x8000)
        file.write((rounded >> 16).astype("<u2").tobytes())
    else:
        file.write(numbers.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes())


def _itemsize(dtype: str) -> int:
    """Bytes of one number."""
    return 4 if dtype == "F32" else 2


def _write_tokenizer(folder: Path) -> None:
    """A token for each byte, whose id is its value, and one that ends an answer."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    # Byte-level tokenizers spell bytes as characters that can be seen, as GPT-2 does.
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    unseen = sorted(set(range(256)) - seen)
    vocabulary = {chr(byte): byte for byte in seen}
    vocabulary |= {chr(256 + n): byte for n, byte in enumerate(unseen)}
    fast = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken("<|im_end|>", special=True, normalized=False)])
    fast.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
    }
    _write_json(folder / "tokenizer_config.json", settings)
    _write_json(folder / "generation_config.json", {"eos_token_id": END})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """One JSON file."""
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
