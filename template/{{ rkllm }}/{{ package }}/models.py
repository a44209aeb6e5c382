"""The models that this plugin offers: the first is what the command takes where none is named.

The repository is where the tokenizer comes from; the weights are the server's .rkllm files.
exo knows a model by its id with the engine's name behind it.
"""

from .kit.cards import Model, cards

MODELS = cards(
    Model("qwen2.5-1.5b-instruct", "Qwen 2.5 1.5B Instruct", "Qwen/Qwen2.5-1.5B-Instruct", 28),
    Model("qwen2.5-3b-instruct", "Qwen 2.5 3B Instruct", "Qwen/Qwen2.5-3B-Instruct", 36),
    Model("qwen2.5-7b-instruct", "Qwen 2.5 7B Instruct", "Qwen/Qwen2.5-7B-Instruct", 28),
    Model("qwen3-1.7b", "Qwen 3 1.7B", "Qwen/Qwen3-1.7B", 28),
    Model("qwen3-4b", "Qwen 3 4B", "Qwen/Qwen3-4B", 36),
    Model(
        "deepseek-r1-distill-qwen-1.5b",
        "DeepSeek R1 Distill Qwen 1.5B",
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
        28,
    ),
    Model("phi-3-mini-4k-instruct", "Phi-3 Mini", "microsoft/Phi-3-mini-4k-instruct", 32),
)
