"""The models that this plugin offers: the first is what the command takes where none is named.

Each repository has plain safetensors (float16 or bfloat16).
exo knows a model by its id with the engine's name behind it.
"""

from .kit.cards import Model, cards

MODELS = cards(
    Model(
        "smollm2-135m-instruct", "SmolLM2 135M Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct", 30
    ),
    Model(
        "smollm2-360m-instruct", "SmolLM2 360M Instruct", "HuggingFaceTB/SmolLM2-360M-Instruct", 32
    ),
    Model("qwen2.5-0.5b-instruct", "Qwen 2.5 0.5B Instruct", "Qwen/Qwen2.5-0.5B-Instruct", 24),
    Model("qwen3-0.6b", "Qwen 3 0.6B", "Qwen/Qwen3-0.6B", 28),
    Model("tinyllama-1.1b-chat", "TinyLlama 1.1B Chat", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", 22),
    # meta-llama's own repositories ask for an account and a consent; these are copies that don't.
    Model("llama-3.2-1b-instruct", "Llama 3.2 1B Instruct", "unsloth/Llama-3.2-1B-Instruct", 16),
    Model("qwen2.5-1.5b-instruct", "Qwen 2.5 1.5B Instruct", "Qwen/Qwen2.5-1.5B-Instruct", 28),
    Model("qwen3-1.7b", "Qwen 3 1.7B", "Qwen/Qwen3-1.7B", 28),
    Model("qwen2.5-3b-instruct", "Qwen 2.5 3B Instruct", "Qwen/Qwen2.5-3B-Instruct", 36),
    Model("llama-3.2-3b-instruct", "Llama 3.2 3B Instruct", "unsloth/Llama-3.2-3B-Instruct", 28),
)
