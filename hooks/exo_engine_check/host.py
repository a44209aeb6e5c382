"""What the checks know of exo: facts of jfreed-dev/exo-rkllama @ 0c831d3, exo 0.0.1."""

from .files import words

GROUP_ENGINES = "exo.inference_engines"
GROUP_MODELS = "exo.models"
GROUP_DETECTORS = "exo.device_detectors"
GROUPS = (GROUP_ENGINES, GROUP_MODELS, GROUP_DETECTORS)
GROUP_PLUGINS = "exo_engine_template.plugins"  # which a launcher of exo 0.3 reads

# Not the newest: this commit was tested, and nobody can make another of it.
EXO_COMMIT = "0c831d39a0c42772aa68df9bacd6af8c8bd3cd84"
GET_EXO = f'pip install "exo @ git+https://github.com/jfreed-dev/exo-rkllama@{EXO_COMMIT}"'

# name: class (plugin_discovery.py:35-40)
BUILT_IN_ENGINES = {
    "dummy": "DummyInferenceEngine",
    "mlx": "MLXDynamicShardInferenceEngine",
    "rkllm": "RKLLMInferenceEngine",
    "tinygrad": "TinygradDynamicShardInferenceEngine",
}

# What a node calls: how many arguments by position, those by name, and where.
CALLS: dict[str, tuple[int, tuple[str, ...], str]] = {
    "__init__": (1, (), "plugin_discovery.py:189"),
    "encode": (2, (), "inference_engine.py:270"),
    "decode": (2, (), "inference_engine.py:249"),
    "sample": (1, ("temp",), "node.py:128"),
    "infer_tensor": (4, (), "node.py:382"),
    "load_checkpoint": (2, (), "inference_engine.py:257"),
    "ensure_shard": (1, (), "node.py:129"),
    "infer_prompt": (4, (), "node.py:214"),
    "save_checkpoint": (2, (), "node.py:258"),
    "save_session": (2, (), "inference_engine.py:263"),
    "clear_session": (0, (), "inference_engine.py:266"),
}
REQUIRED = ("encode", "decode", "sample", "infer_tensor", "load_checkpoint", "ensure_shard")

# exo's setup.py, and what follows from it for transformers' own requirements.
PINS = dict(
    pin.split("==")
    for pin in words(
        """aiofiles==24.1.0 aiohttp==3.10.11 aiohttp-cors==0.7.0 grpcio==1.68.0 grpcio-tools==1.68.0
        huggingface-hub==0.26.5 jinja2==3.1.4 nuitka==2.5.1 numpy==2.0.0 nvidia-ml-py==12.560.30
        opencv-python==4.10.0.84 pillow==10.4.0 prometheus-client==0.20.0 protobuf==5.28.1
        psutil==6.0.0 pydantic==2.9.2 requests==2.32.3 rich==13.7.1 safetensors==0.4.5 scapy==2.6.1
        tokenizers==0.20.3 tqdm==4.66.4 transformers==4.46.3 uvloop==0.21.0"""
    )
)
PYTHONS = ("3.11", "3.12")  # numpy 2.0.0 has no wheel for 3.13

# Newest release does not live with a pin of exo: what pip would do to exo's environment.
BREAKS_PINS = {"typer": "rich 13.8 or newer, and exo pins 13.7.1"}
MODEL_IDS = words(
    """
    deepseek-coder-v2-lite deepseek-coder-v2.5 deepseek-r1 deepseek-r1-1.5b-rkllm deepseek-r1-3bit
    deepseek-r1-distill-llama-70b deepseek-r1-distill-llama-70b-3bit
    deepseek-r1-distill-llama-70b-6bit deepseek-r1-distill-llama-70b-8bit
    deepseek-r1-distill-llama-8b deepseek-r1-distill-llama-8b-3bit
    deepseek-r1-distill-llama-8b-6bit deepseek-r1-distill-llama-8b-8bit
    deepseek-r1-distill-llama-8b-bf16 deepseek-r1-distill-qwen-1.5b
    deepseek-r1-distill-qwen-1.5b-3bit deepseek-r1-distill-qwen-1.5b-6bit
    deepseek-r1-distill-qwen-1.5b-8bit deepseek-r1-distill-qwen-1.5b-bf16
    deepseek-r1-distill-qwen-14b deepseek-r1-distill-qwen-14b-3bit
    deepseek-r1-distill-qwen-14b-6bit deepseek-r1-distill-qwen-14b-8bit
    deepseek-r1-distill-qwen-14b-bf16 deepseek-r1-distill-qwen-32b
    deepseek-r1-distill-qwen-32b-3bit deepseek-r1-distill-qwen-32b-6bit
    deepseek-r1-distill-qwen-32b-8bit deepseek-r1-distill-qwen-32b-bf16
    deepseek-r1-distill-qwen-7b deepseek-r1-distill-qwen-7b-3bit deepseek-r1-distill-qwen-7b-6bit
    deepseek-r1-distill-qwen-7b-8bit deepseek-r1-distill-qwen-7b-bf16 deepseek-v3 deepseek-v3-3bit
    dummy gemma2-27b gemma2-9b llama-3-70b llama-3-8b llama-3.1-405b llama-3.1-405b-8bit
    llama-3.1-70b llama-3.1-70b-bf16 llama-3.1-8b llama-3.2-1b llama-3.2-1b-8bit llama-3.2-3b
    llama-3.2-3b-8bit llama-3.2-3b-bf16 llama-3.3-70b llava-1.5-7b-hf mistral-large mistral-nemo
    nemotron-70b nemotron-70b-bf16 phi-3-mini-rkllm phi-3.5-mini phi-4 qwen-2.5-0.5b qwen-2.5-1.5b
    qwen-2.5-14b qwen-2.5-32b qwen-2.5-3b qwen-2.5-72b qwen-2.5-7b qwen-2.5-coder-1.5b
    qwen-2.5-coder-14b qwen-2.5-coder-32b qwen-2.5-coder-3b qwen-2.5-coder-7b qwen-2.5-math-72b
    qwen-2.5-math-7b qwen2.5-1.5b-instruct-rkllm qwen2.5-1.5b-rkllm qwen2.5-3b-rkllm
    qwen2.5-7b-rkllm stable-diffusion-2-1-base
    """
)
