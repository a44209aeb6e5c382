"""What a checkpoint's config.json says of the model, in the spellings of transformers 4 and 5."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..repository.facts import Facts, RepositoryError, rope_parameters, scaled_context

FAMILIES = {  # by model_type
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
ARCHITECTURES = tuple(FAMILIES.values())
# What transformers' configuration classes take where config.json says nothing.
_USUAL: dict[str, Any] = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "rms_norm_eps": 1e-6,
    "sliding_window": 4096,
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": _USUAL
    | {"vocab_size": 32000, "intermediate_size": 11008, "max_position_embeddings": 2048},
    "MistralForCausalLM": _USUAL
    | {"vocab_size": 32000, "intermediate_size": 14336, "max_position_embeddings": 131072}
    | {"num_key_value_heads": 8},
    "Qwen2ForCausalLM": _USUAL
    | {"vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768}
    | {"num_key_value_heads": 32},
    "Qwen3ForCausalLM": _USUAL
    | {"vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768}
    | {"num_key_value_heads": 32, "head_dim": 128},
}
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


CheckpointError = RepositoryError


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
        content = Facts(folder).config
        try:
            return cls.from_dict(content)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Config":
        """Take what config.json holds. Raises CheckpointError."""
        architecture = _architecture(content)
        content = _DEFAULTS[architecture] | content
        read = _Reader(content)
        llama, qwen3 = architecture == "LlamaForCausalLM", architecture == "Qwen3ForCausalLM"
        hidden_size, heads = read.count("hidden_size"), read.count("num_attention_heads")
        kv_heads = read.count("num_key_value_heads", heads)
        if heads % kv_heads:
            raise CheckpointError(f"{heads} attention heads can't share {kv_heads} key-value heads")
        head_dim = read.count("head_dim", 128 if qwen3 else hidden_size // heads)
        if head_dim % 2:
            raise CheckpointError(f"head_dim is {head_dim}; rotary embedding needs an even one")
        read.count("max_position_embeddings")
        bias = (llama or qwen3) and read.flag("attention_bias")
        return cls(
            layers=read.count("num_hidden_layers"),
            hidden_size=hidden_size,
            intermediate_size=read.count("intermediate_size"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            vocab_size=read.count("vocab_size"),
            context_length=scaled_context(content) or 1,
            norm_eps=read.number("rms_norm_eps"),
            rope=_rope(content),
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


def _architecture(content: dict[str, Any]) -> str:
    """The model's class, where it is one that runs here.

    model_type says it, as transformers' AutoConfig reads it; the first of `architectures` only
    which part of the model the weights are for.
    """
    named, family = content.get("architectures"), content.get("model_type")
    first = named[0] if isinstance(named, list) and named else None
    by_name = {name.lower(): name for name in ARCHITECTURES}
    architecture = by_name.get(str(first).lower()) if named else FAMILIES.get(str(family))
    if architecture is None:
        nested = "; its text model is nested in text_config" if "text_config" in content else ""
        known = ", ".join(ARCHITECTURES)
        raise CheckpointError(
            f"the architecture {first or family!r} is none of {known}{nested}. Take a text model "
            "of one of these"
        )
    if family is not None:
        if str(family) not in FAMILIES:
            raise CheckpointError(
                f"model_type is {family!r}, and architectures names {architecture}: which of them "
                "it is can't be told"
            )
        architecture = FAMILIES[str(family)]
    for key in ("quantization_config", "compression_config"):
        if (quantization := content.get(key)) is not None:
            method = quantization.get("quant_method") if isinstance(quantization, dict) else None
            raise CheckpointError(
                f"the checkpoint is quantized ({method or quantization!r}); "
                "take the model's float16, bfloat16 or float32 one"
            )
    activation = content.get("hidden_act") or "silu"
    if activation not in ("silu", "swish"):  # two names of one function
        raise CheckpointError(f"the activation {activation!r} is not silu")
    return architecture


def _rope(content: dict[str, Any]) -> Rope:
    """The rotary embedding, as the files together say it."""
    rope = rope_parameters(content)
    read = _Reader(rope)
    theta = read.number("rope_theta", 10000.0)
    # Nested objects are parameters by kind of layer, which none of these models has.
    kind = read.get("rope_type", read.get("type", "default"))
    if any(isinstance(value, dict) for value in rope.values()):
        kind = rope
    partial = read.get("partial_rotary_factor", 1.0)
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
        beside = content.get("original_max_position_embeddings")  # it counts where it is there
        own = rope if beside is None else rope | {"original_max_position_embeddings": beside}
        usual = content["max_position_embeddings"]
        original = _Reader(own).count("original_max_position_embeddings", usual)
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
