"""The models that this plugin offers: the first is what the command takes where none is named.

The repository is where the tokenizer comes from; the weights are the server's. The command's
`models` prints the lines for what your server has. exo knows a model by its id with the engine's
name behind it.
"""

from .kit.cards import Model, cards

MODELS = cards(
    Model("smollm2-135m-instruct", "SmolLM2 135M", "HuggingFaceTB/SmolLM2-135M-Instruct", 30),
    Model("smollm2-1.7b-instruct", "SmolLM2 1.7B", "HuggingFaceTB/SmolLM2-1.7B-Instruct", 24),
    Model("smollm3-3b", "SmolLM3 3B", "HuggingFaceTB/SmolLM3-3B", 36),
    Model("qwen2.5-0.5b-instruct", "Qwen 2.5 0.5B", "Qwen/Qwen2.5-0.5B-Instruct", 24),
    Model("qwen2.5-1.5b-instruct", "Qwen 2.5 1.5B", "Qwen/Qwen2.5-1.5B-Instruct", 28),
    Model("qwen2.5-7b-instruct", "Qwen 2.5 7B", "Qwen/Qwen2.5-7B-Instruct", 28),
    Model("qwen2.5-14b-instruct", "Qwen 2.5 14B", "Qwen/Qwen2.5-14B-Instruct", 48),
    Model("qwen2.5-32b-instruct", "Qwen 2.5 32B", "Qwen/Qwen2.5-32B-Instruct", 64),
    Model("qwen2.5-72b-instruct", "Qwen 2.5 72B", "Qwen/Qwen2.5-72B-Instruct", 80),
    Model("qwen3-0.6b", "Qwen 3 0.6B", "Qwen/Qwen3-0.6B", 28),
    Model("qwen3-1.7b", "Qwen 3 1.7B", "Qwen/Qwen3-1.7B", 28),
    Model("qwen3-4b", "Qwen 3 4B", "Qwen/Qwen3-4B", 36),
    Model("qwen3-8b", "Qwen 3 8B", "Qwen/Qwen3-8B", 36),
    Model("qwen3-14b", "Qwen 3 14B", "Qwen/Qwen3-14B", 40),
    Model("qwen3-32b", "Qwen 3 32B", "Qwen/Qwen3-32B", 64),
    Model("qwen3-30b-a3b", "Qwen 3 30B A3B", "Qwen/Qwen3-30B-A3B", 48),
    Model("llama-3.2-1b-instruct", "Llama 3.2 1B", "unsloth/Llama-3.2-1B-Instruct", 16),
    Model("llama-3.2-3b-instruct", "Llama 3.2 3B", "unsloth/Llama-3.2-3B-Instruct", 28),
    Model("llama-3.1-8b-instruct", "Llama 3.1 8B", "unsloth/Meta-Llama-3.1-8B-Instruct", 32),
    Model("llama-3.3-70b-instruct", "Llama 3.3 70B", "unsloth/Llama-3.3-70B-Instruct", 80),
    Model("gemma-3-1b-it", "Gemma 3 1B", "unsloth/gemma-3-1b-it", 26),
    Model("gemma-3-4b-it", "Gemma 3 4B", "unsloth/gemma-3-4b-it", 34),
    Model("gemma-3-12b-it", "Gemma 3 12B", "unsloth/gemma-3-12b-it", 48),
    Model("phi-4", "Phi 4", "microsoft/phi-4", 40),
    Model("phi-4-mini-instruct", "Phi 4 mini", "microsoft/Phi-4-mini-instruct", 32),
    Model("gpt-oss-20b", "gpt-oss 20B", "openai/gpt-oss-20b", 24),
    Model("gpt-oss-120b", "gpt-oss 120B", "openai/gpt-oss-120b", 36),
)
