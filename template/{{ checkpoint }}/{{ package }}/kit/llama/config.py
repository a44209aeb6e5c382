"""What a checkpoint's config.json says of the model, in the spellings of transformers 4 and 5."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..repository.facts import Facts, RepositoryError, scaled_context
from .reader import Reader
from .rope import Rope, read_rope

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
        """Read a Hugging Face folder. Raises FileNotFoundError, RepositoryError."""
        path = folder / "config.json"
        if not path.is_file():
            raise FileNotFoundError(f"{folder} has no config.json; download the model's files")
        content = Facts(folder).config
        try:
            return cls.from_dict(content)
        except RepositoryError as error:
            raise RepositoryError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Config":
        """Take what config.json holds. Raises RepositoryError."""
        architecture = _architecture(content)
        content = _DEFAULTS[architecture] | content
        read = Reader(content)
        llama, qwen3 = architecture == "LlamaForCausalLM", architecture == "Qwen3ForCausalLM"
        hidden_size, heads = read.count("hidden_size"), read.count("num_attention_heads")
        kv_heads = read.count("num_key_value_heads", heads)
        if heads % kv_heads:
            raise RepositoryError(f"{heads} attention heads can't share {kv_heads} key-value heads")
        head_dim = read.count("head_dim", 128 if qwen3 else hidden_size // heads)
        if head_dim % 2:
            raise RepositoryError(f"head_dim is {head_dim}; rotary embedding needs an even one")
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
            rope=read_rope(content, head_dim),
            windows=_windows(architecture, read),
            qkv_bias=bias or architecture == "Qwen2ForCausalLM",
            output_bias=bias,
            mlp_bias=llama and read.flag("mlp_bias"),
            qk_norm=qwen3,
            tied=read.flag("tie_word_embeddings"),
        )


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
        raise RepositoryError(
            f"the architecture {first or family!r} is none of {known}{nested}. Take a text model "
            "of one of these"
        )
    if family is not None:
        if str(family) not in FAMILIES:
            raise RepositoryError(
                f"model_type is {family!r}, and architectures names {architecture}: which of them "
                "it is can't be told"
            )
        architecture = FAMILIES[str(family)]
    for key in ("quantization_config", "compression_config"):
        if (quantization := content.get(key)) is not None:
            method = quantization.get("quant_method") if isinstance(quantization, dict) else None
            raise RepositoryError(
                f"the checkpoint is quantized ({method or quantization!r}); "
                "take the model's float16, bfloat16 or float32 one"
            )
    activation = content.get("hidden_act") or "silu"
    if activation not in ("silu", "swish"):  # two names of one function
        raise RepositoryError(f"the activation {activation!r} is not silu")
    return architecture


def _windows(architecture: str, read: Reader) -> tuple[int | None, ...]:
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
        raise RepositoryError(
            f"layer_types is {kinds!r}; it should have {' or '.join(known)} for {layers} layers"
        )
    return tuple(window if kind == known[1] else None for kind in kinds)
