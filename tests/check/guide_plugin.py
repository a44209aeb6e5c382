"""The plugin of exo's plugin guide: as the guide has it, and with its faults corrected."""

from pathlib import Path

ENGINE = '''\
# exo_myengine/engine.py
import numpy as np
from exo.inference.inference_engine import InferenceEngine
from exo.inference.shard import Shard
from exo.download.shard_download import ShardDownloader

class MyInferenceEngine(InferenceEngine):
    def __init__(self, shard_downloader: ShardDownloader):
        self.shard_downloader = shard_downloader
        self.tokenizer = None
        self.model = None

    async def encode(self, shard: Shard, prompt: str) -> np.ndarray:
        """Tokenize a prompt string to token IDs."""
        # Load tokenizer if needed
        if self.tokenizer is None:
            self.tokenizer = await self._load_tokenizer(shard)
        tokens = self.tokenizer.encode(prompt)
        return np.array(tokens, dtype=np.int32)

    async def decode(self, shard: Shard, tokens: np.ndarray) -> str:
        """Decode token IDs to string."""
        if self.tokenizer is None:
            self.tokenizer = await self._load_tokenizer(shard)
        return self.tokenizer.decode(tokens.tolist())

    async def sample(self, x: np.ndarray) -> np.ndarray:
        """Sample next token from logits."""
        # x is either logits or token IDs depending on your engine
        if x.ndim == 1:
            # Already token IDs
            return x
        # Sample from logits
        return np.argmax(x, axis=-1)

    async def infer_tensor(
        self,
        request_id: str,
        shard: Shard,
        input_data: np.ndarray,
        inference_state: dict = None
    ) -> tuple[np.ndarray, dict]:
        """Run inference on input tokens."""
        # Load model if needed
        if self.model is None:
            await self.load_checkpoint(shard, None)

        # Your inference logic here
        output = self._run_inference(input_data, inference_state)

        return output, inference_state

    async def load_checkpoint(self, shard: Shard, path: str):
        """Load model weights."""
        # Download model if needed
        model_path = await self.shard_downloader.ensure_shard(shard)
        self.model = self._load_model(model_path)
'''

MODELS = """\
# exo_myengine/models.py

MY_MODELS = {
    "my-model-7b": {
        "layers": 32,
        "repo": {
            "MyInferenceEngine": "organization/my-model-7b",
        },
    },
    "my-model-13b": {
        "layers": 40,
        "repo": {
            "MyInferenceEngine": "organization/my-model-13b",
        },
    },
}

MY_PRETTY_NAMES = {
    "my-model-7b": "My Model 7B",
    "my-model-13b": "My Model 13B",
}
"""

DETECTION = '''\
# exo_myengine/detection.py

def detect_my_device() -> bool:
    """Check if this device supports your engine."""
    # Check for hardware, drivers, libraries, etc.
    try:
        import my_hardware_sdk
        return my_hardware_sdk.is_available()
    except ImportError:
        return False
'''

CONFIG = """\
# pyproject.toml
[project]
name = "exo-myengine"
version = "0.1.0"
dependencies = ["exo"]

[project.entry-points."exo.inference_engines"]
myengine = "exo_myengine.engine:MyInferenceEngine"

[project.entry-points."exo.models"]
myengine = "exo_myengine.models:MY_MODELS"

[project.entry-points."exo.device_detectors"]
mydevice = "exo_myengine.detection:detect_my_device"
"""

GOOD_ENGINE = '''\
"""An engine of one layer: the id after n is n + 1."""

import numpy as np
from exo.inference.inference_engine import InferenceEngine


class Tokenizer:
    eos_token_id = 255

    def encode(self, text):
        return list(text.encode())

    def decode(self, ids):
        return bytes(i % 256 for i in ids).decode("utf-8", "replace")


class MyInferenceEngine(InferenceEngine):
    def __init__(self, shard_downloader):
        self.shard_downloader = shard_downloader
        self.shard = None
        self.tokenizer = None
        self.folder = None

    async def encode(self, shard, prompt):
        await self.ensure_shard(shard)
        return np.array(self.tokenizer.encode(prompt))

    async def decode(self, shard, tokens):
        await self.ensure_shard(shard)
        return self.tokenizer.decode(tokens.tolist())

    async def sample(self, x, temp=0.0, top_p=1.0):
        if x.dtype.kind == "i":
            return x.reshape(-1)[-1:]
        return np.array([np.argmax(x[0, -1])])

    async def infer_tensor(self, request_id, shard, input_data, inference_state=None):
        await self.ensure_shard(shard)
        hidden = input_data.astype(np.float32).reshape(1, -1, 1)
        if not shard.is_last_layer():
            return hidden, inference_state
        logits = np.zeros((1, 1, 256), dtype=np.float32)
        logits[0, 0, int(hidden[0, -1, 0] + 1) % 256] = 1
        return logits, inference_state

    async def ensure_shard(self, shard):
        if self.shard != shard:
            self.folder = await self.shard_downloader.ensure_shard(shard, type(self).__name__)
            self.tokenizer = Tokenizer()
            self.shard = shard

    async def load_checkpoint(self, shard, path):
        await self.ensure_shard(shard)
'''

GOOD_DETECTION = DETECTION.replace("-> bool", "-> str | None").replace(
    "return my_hardware_sdk.is_available()\n    except ImportError:\n        return False",
    "return str(my_hardware_sdk.name())\n    except Exception:\n        return None",
)

GOOD_CONFIG = CONFIG.replace(
    'dependencies = ["exo"]\n',
    'readme = "README.md"\nlicense = "MIT"\nrequires-python = ">=3.11"\ndependencies = ["numpy"]\n',
)


def write(folder: Path, files: dict[str, str]) -> Path:
    """A project of these files; the package is always one."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def as_it_is(folder: Path) -> Path:
    """Word for word."""
    files = {"engine.py": ENGINE, "models.py": MODELS, "detection.py": DETECTION, "__init__.py": ""}
    package = {f"exo_myengine/{name}": text for name, text in files.items()}
    return write(folder, package | {"pyproject.toml": CONFIG})


def corrected(folder: Path, **other: str) -> Path:
    """With every fault corrected; `other` replaces engine, models, detection, config or init."""
    files = {
        "exo_myengine/__init__.py": other.get("init", ""),
        "exo_myengine/engine.py": other.get("engine", GOOD_ENGINE),
        "exo_myengine/models.py": other.get("models", MODELS),
        "exo_myengine/detection.py": other.get("detection", GOOD_DETECTION),
        "exo_myengine/py.typed": "",
        "pyproject.toml": other.get("config", GOOD_CONFIG),
        "README.md": "# exo-myengine\n",
    }
    return write(folder, files)
