"""Published repositories that don't run here, and what says so."""

from typing import Any

from .repository import METAL, TPU

_YARN = {"rope_type": "yarn", "type": "yarn", "factor": 64.0, "beta_fast": 4.0, "beta_slow": 1.0}
_YARN |= {"original_max_position_embeddings": 4096, "rope_theta": 1000000.0}

# By name: the source, what its config.json says, and words of the sentence.
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "openbmb/MiniCPM4-8B": (
        f"{TPU}MiniCPM4/config/config.json",
        {"architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm", "scale_emb": 12},
        "the architecture 'MiniCPMForCausalLM' is none of LlamaForCausalLM",
    ),
    "mistralai/Devstral-2-123B-Instruct": (
        METAL.format("06927cda3e9f", "Devstral-2-123B-Instruct"),
        {"architectures": ["Ministral3ForCausalLM"], "model_type": "ministral3"}
        | {"rope_parameters": _YARN, "quantization_config": {"quant_method": "fp8"}},
        "the architecture 'Ministral3ForCausalLM' is none of LlamaForCausalLM",
    ),
    "meta-llama/Llama-3.2-11B-Vision-Instruct": (
        f"{TPU}Llama3_2-Vision/token_config/config.json",
        {"architectures": ["MllamaForConditionalGeneration"], "model_type": "mllama"}
        | {"text_config": {"model_type": "mllama_text_model"}},
        "its text model is nested in text_config",
    ),
    "WizardLMTeam/WizardCoder-15B-V1.0": (
        f"{TPU}WizardCoder/compile/files/WizardCoder-15B-V1.0/config.json",
        {"architectures": ["GPTBigCodeForCausalLM"], "model_type": "gpt_bigcode"},
        "the architecture 'GPTBigCodeForCausalLM' is none of LlamaForCausalLM",
    ),
    "Sumail/Hermes-8b-awq-int4": (
        "hub:Sumail/Hermes-8b-awq-int4@main:config.json",
        {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
        | {"quantization_config": {"bits": 4, "quant_method": "awq", "version": "gemm"}},
        "the checkpoint is quantized ('awq')",
    ),
}
