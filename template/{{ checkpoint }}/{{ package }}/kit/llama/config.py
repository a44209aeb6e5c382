"""What a checkpoint's config.json says of the model, in the spellings of transformers 4 and 5."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARCHITECTURES = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
)
LARGEST_FILE = 10_000_000  # bytes of a config.json; published ones have some thousand
# Far above every published model; a larger size would cost memory before a weight is read.
_LARGEST = {
    "num_hidden_layers": 1 << 12,
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 22,
    "num_attention_heads": 1 << 16,
    "num_key_value_heads": 1 << 16,
    "head_dim": 1 << 16,
    "vocab_size": 1 << 24,
}
_MISSING = object()


class CheckpointError(ValueError):
    """A checkpoint that can't be run; the text names what is wrong with it."""


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding: `default`, `linear`, or `llama3` with its bounds."""

    theta: float
    kind: str = "default"
    factor: float = 1.0
    low_frequency: float = 1.0
    high_frequency: float = 1.0
    original_context: int = 0


@dataclass(frozen=True)
class Config:
    """One model. `windows` has each layer's sliding window; None is full attention."""

    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    context_length: int
    norm_eps: float
    rope: Rope
    windows: tuple[int | None, ...]
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    tied: bool

    @classmethod
    def from_folder(cls, folder: Path) -> "Config":
        """Read a Hugging Face folder. Raises FileNotFoundError, CheckpointError."""
        path = folder / "config.json"
        if not path.is_file():
            raise FileNotFoundError(f"{folder} has no config.json; download the model's files")
        text = read_whole(path, LARGEST_FILE)
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{path} is not JSON: {error}; delete it and download it again"
            ) from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{path} holds no object; delete it and download it again")
        try:
            return cls.from_dict(content)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Config":
        """Take what config.json holds. Raises CheckpointError."""
        architecture = _architecture(content)
        read = _Reader(content)
        llama, qwen3 = architecture == "LlamaForCausalLM", architecture == "Qwen3ForCausalLM"
        hidden_size, heads = read.count("hidden_size"), read.count("num_attention_heads")
        kv_heads = read.count("num_key_value_heads", heads)
        if heads % kv_heads:
            raise CheckpointError(f"{heads} attention heads can't share {kv_heads} key-value heads")
        head_dim = read.count("head_dim", 128 if qwen3 else hidden_size // heads)
        if head_dim % 2:
            raise CheckpointError(f"head_dim is {head_dim}; rotary embedding needs an even one")
        context_length = read.count("max_position_embeddings")
        bias = (llama or qwen3) and read.flag("attention_bias")
        return cls(
            layers=read.count("num_hidden_layers"),
            hidden_size=hidden_size,
            intermediate_size=read.count("intermediate_size"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            vocab_size=read.count("vocab_size"),
            context_length=context_length,
            norm_eps=read.number("rms_norm_eps"),
            rope=_rope(content, context_length),
            windows=_windows(architecture, read),
            qkv_bias=bias or architecture == "Qwen2ForCausalLM",
            output_bias=bias,
            mlp_bias=llama and read.flag("mlp_bias"),
            qk_norm=qwen3,
            tied=read.flag("tie_word_embeddings"),
        )


@dataclass(frozen=True)
class _Reader:
    """Values of the kind asked for; null is a key that is not there."""

    content: dict[str, Any]

    def get(self, key: str, default: Any = _MISSING) -> Any:
        value = self.content.get(key)
        if value is None:
            value = default
        if value is _MISSING:
            raise CheckpointError(f"{key} is missing")
        return value

    def count(self, key: str, default: Any = _MISSING, least: int = 1) -> int:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise CheckpointError(
                f"{key} is {value!r}; it should be a whole number from {least} on"
            )
        most = _LARGEST.get(key)
        if most is not None and value > most:
            raise CheckpointError(f"{key} is {value}; no model has more than {most}")
        return value

    def number(self, key: str, default: Any = _MISSING) -> float:
        value = self.get(key, default)
        real = isinstance(value, int | float) and not isinstance(value, bool)
        if not real or not 0 < value < 1e300:  # an int may be too large for a float
            raise CheckpointError(f"{key} is {value!r}; it should be a number above zero")
        return float(value)

    def flag(self, key: str) -> bool:
        value = self.get(key, False)
        if not isinstance(value, bool):
            raise CheckpointError(f"{key} is {value!r}; it should be true or false")
        return value


def read_whole(path: Path, most: int) -> bytes:
    """A file's bytes. Raises CheckpointError where it has more than `most`, before it is read."""
    size = path.stat().st_size
    if size > most:
        raise CheckpointError(f"{path} has {size} bytes; no model's has more than {most}")
    return path.read_bytes()


def _architecture(content: dict[str, Any]) -> str:
    """The model's class, where it is one that runs here."""
    named = content.get("architectures")
    architecture = named[0] if isinstance(named, list) and named else None
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise CheckpointError(f"the architecture {architecture!r} is none of {known}")
    quantization = content.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise CheckpointError(
            f"the checkpoint is quantized ({method or quantization!r}); "
            "take the model's float16, bfloat16 or float32 one"
        )
    activation = content.get("hidden_act") or "silu"
    if activation != "silu":
        raise CheckpointError(f"the activation {activation!r} is not silu")
    return str(architecture)


def _rope(content: dict[str, Any], context_length: int) -> Rope:
    """transformers 5 has it all in `rope_parameters`, 4 in `rope_theta` and `rope_scaling`."""
    scaling = content.get("rope_parameters") or content.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        raise CheckpointError(f"the rope parameters are {scaling!r}; they should be an object")
    read = _Reader({"rope_theta": content.get("rope_theta")} | scaling)
    theta = read.number("rope_theta", 10000.0)
    # Nested objects are parameters by kind of layer, which none of these models has.
    kind = read.get("rope_type", read.get("type", "default"))
    if any(isinstance(value, dict) for value in scaling.values()):
        kind = scaling
    partial = read.get("partial_rotary_factor", content.get("partial_rotary_factor") or 1.0)
    if partial != 1.0:
        raise CheckpointError(f"partial_rotary_factor is {partial!r}; only 1.0 is known")
    if kind == "default":
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, kind, read.number("factor"))
    if kind == "llama3":
        low, high = read.number("low_freq_factor"), read.number("high_freq_factor")
        if low >= high:
            raise CheckpointError(f"low_freq_factor {low} is not below high_freq_factor {high}")
        original = read.count("original_max_position_embeddings", context_length)
        return Rope(theta, kind, read.number("factor"), low, high, original)
    raise CheckpointError(f"the rope type {kind!r} is none of default, linear, llama3")


def _windows(architecture: str, read: _Reader) -> tuple[int | None, ...]:
    """Each layer's sliding window. Qwen has one only where `use_sliding_window` says so."""
    layers = read.count("num_hidden_layers")
    if architecture == "LlamaForCausalLM" or read.get("sliding_window", None) is None:
        return (None,) * layers
    if architecture == "MistralForCausalLM":
        return (read.count("sliding_window"),) * layers
    if not read.flag("use_sliding_window"):
        return (None,) * layers
    window, known = read.count("sliding_window"), ("full_attention", "sliding_attention")
    full = read.count("max_window_layers", 28, least=0)
    kinds = read.get("layer_types", [known[n >= full] for n in range(layers)])
    right = isinstance(kinds, list) and all(kind in known for kind in kinds)
    if not right or len(kinds) != layers:
        raise CheckpointError(
            f"layer_types is {kinds!r}; it should have {' or '.join(known)} for {layers} layers"
        )
    return tuple(window if kind == known[1] else None for kind in kinds)
