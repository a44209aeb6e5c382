"""Ways to break the rendered RKLLM plugin, each with the checks that have to find it."""
# ruff: noqa: E501 - a row of a table is read in one line

from dataclasses import dataclass
from pathlib import Path

CONFIG = "pyproject.toml"
ANSWERS = ".copier-answers.yml"
INIT = "exo_rkllm/__init__.py"
ENGINE = "exo_rkllm/engine.py"
MODELS = "exo_rkllm/models.py"
DETECTION = "exo_rkllm/detection.py"
METRICS = "exo_rkllm/metrics.py"
BACKEND = "exo_rkllm/backend.py"
HOST = "exo_rkllm/host.py"


@dataclass(frozen=True)
class Edit:
    """One change of a file; without `old` the file goes."""

    path: str
    old: str | None
    new: str = ""
    everywhere: bool = False


@dataclass(frozen=True)
class Mutation:
    """What an author did, and the check that says so: two where it breaks two things."""

    name: str
    id: str
    edits: tuple[Edit, ...]


def mutation(name: str, id_: str, *edits: tuple[str, str, str]) -> Mutation:
    return Mutation(name, id_, tuple(Edit(*edit) for edit in edits))


def everywhere(name: str, id_: str, path: str, old: str, new: str) -> Mutation:
    return Mutation(name, id_, (Edit(path, old, new, everywhere=True),))


def removed(name: str, id_: str, path: str) -> Mutation:
    return Mutation(name, id_, (Edit(path, None),))


def apply(plugin: Path, change: Mutation) -> None:
    """Make the changes; each of them has to have something to change."""
    for edit in change.edits:
        path = plugin / edit.path
        if edit.old is None:
            path.unlink()
            continue
        text = path.read_text(encoding="utf-8")
        count = text.count(edit.old)
        assert count == 1 or (count > 1 and edit.everywhere), f"{edit.old!r}: {count} times"
        path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")


ENCODE = "    async def encode(self, shard: Shard, prompt: str)"
DECODE = "    async def decode(self, shard: Shard, tokens: Array)"
SAMPLE = "async def sample(self, x: Array, temp: float = 0.0, top_p: float = 1.0)"
STEP = (
    "            return await self._step(request_id, shard, input_data, arrived), inference_state\n"
)
DEPENDENCIES = "dependencies = [\n"
ENTRY = 'rkllama = "exo_rkllm.engine:RkllamaInferenceEngine"'
DETECT = 'def detect_device(root: Path = Path("/")) -> str | None:'
FIRST = '"qwen2.5-1.5b-instruct", 28, "Qwen/Qwen2.5-1.5B-Instruct"'

PROJECT = [
    mutation("broken TOML", "EX001", (CONFIG, "[project.scripts]", "[project.scripts")),
    mutation("a syntax error", "EX002", (BACKEND, "class Backend:", "class Backend")),
    mutation(
        "an ignore without a reason",
        "EX003",
        (CONFIG, "[tool.ruff]\n", '[tool.exo-engine.ignore]\nEX503 = ""\n\n[tool.ruff]\n'),
    ),
    mutation(
        "an ignore of a check that is not there",
        "EX003",
        (CONFIG, "[tool.ruff]\n", '[tool.exo-engine.ignore]\nEX999 = "gone"\n\n[tool.ruff]\n'),
    ),
    mutation(
        "a list of ignores has no room for reasons",
        "EX003",
        (CONFIG, "[tool.ruff]\n", '[tool.exo-engine]\nignore = ["EX503"]\n\n[tool.ruff]\n'),
    ),
]

ENTRY_POINTS = [
    mutation(
        "no engine is registered",
        "EX101",
        (CONFIG, f'[project.entry-points."exo.inference_engines"]\n{ENTRY}\n', ""),
    ),
    mutation("the engines' group is empty", "EX101", (CONFIG, f"{ENTRY}\n", "")),
    mutation(
        "no models are registered",
        "EX102",
        (CONFIG, '[project.entry-points."exo.models"]\nrkllama = "exo_rkllm.models:MODELS"\n', ""),
    ),
    mutation(
        "no detector is registered",
        "EX103",
        (CONFIG, '[project.entry-points."exo.device_detectors"]\n', "[tool.nothing]\n"),
    ),
    mutation(
        "the engines' group in the singular",
        "EX104",
        (CONFIG, '"exo.inference_engines"', '"exo.inference_engine"'),
    ),
    mutation("the models' group in the singular", "EX104", (CONFIG, '"exo.models"', '"exo.model"')),
    mutation(
        "a group with hyphens",
        "EX104",
        (CONFIG, '"exo.device_detectors"', '"exo.device-detectors"'),
    ),
    mutation(
        "a group with an underscore for the dot", "EX104", (CONFIG, '"exo.models"', '"exo_models"')
    ),
    mutation(
        "a value without a colon", "EX105", (CONFIG, "exo_rkllm.models:MODELS", "exo_rkllm.models")
    ),
    mutation(
        "a hyphen in the module",
        "EX105",
        (CONFIG, "exo_rkllm.models:MODELS", "exo-rkllm.models:MODELS"),
    ),
    mutation(
        "extras in the value",
        "EX105",
        (CONFIG, "exo_rkllm.models:MODELS", "exo_rkllm.models:MODELS [npu]"),
    ),
    mutation(
        "a nested attribute",
        "EX105",
        (CONFIG, "exo_rkllm.models:MODELS", "exo_rkllm.models:Cards.MODELS"),
    ),
    mutation(
        "a stale module",
        "EX106",
        (CONFIG, "exo_rkllm.detection:detect_device", "exo_rkllm.detect:detect_device"),
    ),
    mutation(
        "a package that is not here",
        "EX106",
        (CONFIG, "exo_rkllm.detection:detect_device", "exo_rkllama.detection:detect_device"),
    ),
    mutation(
        "a renamed class",
        "EX107",
        (ENGINE, "class RkllamaInferenceEngine(", "class RkllamaEngine("),
    ),
    mutation(
        "a renamed dict", "EX107", (CONFIG, "exo_rkllm.models:MODELS", "exo_rkllm.models:MODEL")
    ),
    mutation(
        "a renamed detector",
        "EX107",
        (CONFIG, "exo_rkllm.detection:detect_device", "exo_rkllm.detection:detect_npu"),
    ),
    mutation(
        "models that are a text",
        "EX108",
        (CONFIG, "exo_rkllm.models:MODELS", "exo_rkllm.models:_SUFFIX"),
    ),
    mutation(
        "models that are a list of the ids",
        "EX108",
        (CONFIG, "exo_rkllm.models:MODELS", "exo_rkllm.models:_MODELS"),
    ),
    mutation(
        "a detector that is a value",
        "EX108",
        (CONFIG, "exo_rkllm.detection:detect_device", "exo_rkllm.detection:_CHIPS"),
    ),
    mutation(
        "the name of a built-in engine",
        "EX109",
        (CONFIG, f"{ENTRY}\n", f"{ENTRY.replace('rkllama =', 'rkllm =')}\n"),
        (ANSWERS, "engine_name: rkllama", "engine_name: rkllm"),
    ),
]

PACKAGING = [
    mutation("PyPI's exo", "EX201", (CONFIG, DEPENDENCIES, f'{DEPENDENCIES}    "exo",\n')),
    mutation(
        "exo from its repository",
        "EX201",
        (CONFIG, DEPENDENCIES, f'{DEPENDENCIES}    "exo @ git+https://github.com/a/b",\n'),
    ),
    mutation("PyPI's exo for the tests", "EX201", (CONFIG, "test = [", 'test = ["Exo>=0.0.1", ')),
    mutation("a newer rich than exo's", "EX202", (CONFIG, "rich>=13.7", "rich>=13.8")),
    mutation(
        "an exact pin", "EX202", (CONFIG, "prometheus-client>=0.20", "prometheus-client==0.21.1")
    ),
    mutation("an upper bound", "EX202", (CONFIG, "tokenizers>=0.20.2", "tokenizers>=0.19,<0.20")),
    mutation(
        "a library that moves a pin",
        "EX202",
        (CONFIG, DEPENDENCIES, f'{DEPENDENCIES}    "typer>=0.9",\n'),
    ),
    mutation("no README is named", "EX203", (CONFIG, 'readme = "README.md"\n', "")),
    removed("the README is gone", "EX203", "README.md"),
    mutation(
        "no licence",
        "EX204",
        (CONFIG, 'license = "Apache-2.0"\nlicense-files = ["LICENSE"]\n', ""),
    ),
    removed("the licence's text is gone", "EX204", "LICENSE"),
    mutation("no requires-python", "EX205", (CONFIG, 'requires-python = ">=3.11"\n', "")),
    mutation("Python 3.13 only", "EX205", (CONFIG, '">=3.11"', '">=3.13"')),
    mutation("a version that is none", "EX205", (CONFIG, '">=3.11"', '"three"')),
    removed("py.typed is gone", "EX206", "exo_rkllm/py.typed"),
    mutation(
        "another engine name in the answers",
        "EX207",
        (ANSWERS, "engine_name: rkllama", "engine_name: rkllm2"),
    ),
    mutation(
        "a project that was renamed", "EX207", (CONFIG, 'name = "exo-rkllm"', 'name = "exo-npu"')
    ),
    mutation(
        "a wheel without the package",
        "EX208",
        (CONFIG, '["exo_rkllm"]\n\n[tool.pytest', '["exo_npu"]\n\n[tool.pytest'),
    ),
    mutation(
        "a project called exo",
        "EX209",
        (CONFIG, 'name = "exo-rkllm"', 'name = "exo"'),
        (ANSWERS, "project_name: exo-rkllm", "project_name: exo"),
    ),
]


def _without(method: str) -> str:
    """A name that leaves the class without a method, whose body stays."""
    return f"async def _no_{method}("


ENGINES = [
    *(
        mutation(f"no {name}()", "EX301", (ENGINE, f"async def {name}(", _without(name)))
        for name in (
            "encode",
            "decode",
            "sample",
            "infer_tensor",
            "load_checkpoint",
            "ensure_shard",
        )
    ),
    mutation("no base class", "EX302", (ENGINE, "Engine(InferenceEngine):", "Engine:")),
    *(
        mutation(f"a sync {name}()", "EX303", (ENGINE, f"async def {name}(", f"def {name}("))
        for name in ("encode", "sample", "infer_tensor", "ensure_shard")
    ),
    mutation(
        "decode() that yields",
        "EX303",
        (ENGINE, "return tokenizer.decode(np", "yield tokenizer.decode(np"),
    ),
    mutation(
        "encode() without the shard",
        "EX304",
        (ENGINE, ENCODE, ENCODE.replace("shard: Shard, ", "")),
    ),
    mutation(
        "infer_tensor() without the state",
        "EX304",
        (
            ENGINE,
            "self, request_id: str, shard: Shard, input_data: Array, inference_state: Any = None",
            "self, request_id: str, shard: Shard, input_data: Array",
        ),
    ),
    mutation(
        "ensure_shard() with a path",
        "EX304",
        (
            ENGINE,
            "async def ensure_shard(self, shard: Shard)",
            "async def ensure_shard(self, shard: Shard, path: Path)",
        ),
    ),
    mutation(
        "sample() as in the guide", "EX305", (ENGINE, SAMPLE, "async def sample(self, x: Array)")
    ),
    mutation(
        "sample() with another word for it",
        "EX305",
        (ENGINE, SAMPLE, SAMPLE.replace("temp:", "temperature:")),
    ),
    mutation(
        "a constructor without parameters",
        "EX306",
        (ENGINE, "def __init__(self, shard_downloader: Any)", "def __init__(self)"),
    ),
    mutation(
        "a constructor with two",
        "EX306",
        (ENGINE, "(self, shard_downloader: Any)", "(self, shard_downloader: Any, device: str)"),
    ),
    mutation(
        "the downloader as in the guide",
        "EX307",
        (ENGINE, "ensure_shard(shard, type(self).__name__)", "ensure_shard(shard)"),
    ),
    mutation(
        "no shard at first", "EX308", (ENGINE, "        self.shard: Shard | None = None\n", "")
    ),
    mutation(
        "the downloader is not kept",
        "EX308",
        (ENGINE, "        self.shard_downloader = shard_downloader\n", ""),
    ),
    everywhere("the tokenizer under another name", "EX308", ENGINE, "self.tokenizer", "self.words"),
    mutation(
        "a call of a method that is not there",
        "EX309",
        (ENGINE, "await self._load(shard)", "await self._load_weights(shard)"),
    ),
    Mutation(
        "the class name of an engine of exo's",
        "EX310",
        tuple(
            Edit(path, "RkllamaInferenceEngine", "DummyInferenceEngine", everywhere=True)
            for path in (CONFIG, ANSWERS, ENGINE, MODELS, INIT)
        ),
    ),
    mutation(
        "a sleep on the loop",
        "EX311",
        (
            ENGINE,
            "            begun = time.monotonic()\n",
            "            time.sleep(1)\n            begun = time.monotonic()\n",
        ),
    ),
    mutation(
        "a plain request on the loop",
        "EX311",
        (
            BACKEND,
            "        await self.close()\n        self._settings",
            "        import requests\n\n        requests.get('http://localhost')\n        await self.close()\n        self._settings",
        ),
    ),
    mutation(
        "an end token of 0 is none",
        "EX312",
        (
            ENGINE,
            "        self.shard, self._loaded = None, None\n        if self._worker is not None:",
            "        if not self.tokenizer.eos_token_id:\n            self.shard = None\n        if self._worker is not None:",
        ),
    ),
    everywhere(
        "partial shards are unknown", "EX313", ENGINE, "shard.is_last_layer()", "shard.model_id"
    ),
    mutation(
        "the cluster's swap is not mended", "EX314", (ENGINE, "        host.mend(type(self))\n", "")
    ),
    mutation(
        "later errors are not mended",
        "EX314",
        (HOST, "        end_failed_answers(node.Node, engine_class)\n", ""),
    ),
    mutation("a static decode()", "EX315", (ENGINE, DECODE, f"    @staticmethod\n{DECODE}")),
    mutation(
        "a method without self",
        "EX315",
        (ENGINE, "encode(self, shard: Shard, prompt", "encode(shard: Shard, prompt"),
    ),
]

CARDS = [
    mutation("a card without layers", "EX401", (MODELS, '"layers": layers, ', "")),
    mutation("a card without repo", "EX401", (MODELS, ', "repo": {_ENGINE: repo}', "")),
    mutation("layers of 0", "EX402", (MODELS, FIRST, FIRST.replace(" 28,", " 0,"))),
    mutation("layers as a text", "EX402", (MODELS, FIRST, FIRST.replace(" 28,", ' "28",'))),
    mutation("layers as a half", "EX402", (MODELS, FIRST, FIRST.replace(" 28,", " 28.0,"))),
    mutation(
        "repo keyed by the engine's name",
        "EX403",
        (MODELS, '_ENGINE = "RkllamaInferenceEngine"', '_ENGINE = "rkllama"'),
    ),
    mutation("repo that is a text", "EX403", (MODELS, "{_ENGINE: repo}", "repo")),
    mutation(
        "repo that is an address",
        "EX404",
        (MODELS, FIRST, FIRST.replace('"Qwen/', '"https://huggingface.co/Qwen/')),
    ),
    mutation(
        "repo that is empty",
        "EX404",
        (MODELS, FIRST, FIRST.replace("Qwen/Qwen2.5-1.5B-Instruct", "")),
    ),
    mutation(
        "ids of exo's own engine", "EX405", (MODELS, '_SUFFIX = "rkllama"', '_SUFFIX = "rkllm"')
    ),
    mutation(
        "a model without a pretty name",
        "EX406",
        (MODELS, "for name, _, _, title in _MODELS\n", "for name, _, _, title in _MODELS[1:]\n"),
    ),
    mutation(
        "pretty names of other ids",
        "EX406",
        (MODELS, 'f"{name}-{_SUFFIX}": f"{title}', 'f"{name}_{_SUFFIX}": f"{title}'),
    ),
]

DETECTORS = [
    mutation(
        "a detector with a parameter",
        "EX501",
        (DETECTION, 'root: Path = Path("/")) -> str', "root: Path) -> str"),
    ),
    mutation(
        "an async detector", "EX501", (DETECTION, "def detect_device", "async def detect_device")
    ),
    mutation(
        "a detector as in the guide",
        "EX502",
        (DETECTION, DETECT, DETECT.replace("str | None", "bool")),
    ),
    mutation(
        "a detector that returns a bool",
        "EX502",
        (
            DETECTION,
            'return found or ("rockchip-npu" if library(root) else None)',
            "return found is not None",
        ),
    ),
    mutation(
        "a detector that raises",
        "EX503",
        (DETECTION, "        names = []\n", '        raise RuntimeError("no NPU")\n'),
    ),
    mutation(
        "a file that may be missing",
        "EX503",
        (
            DETECTION,
            "except OSError:\n        names = []",
            "except ValueError:\n        names = []",
        ),
    ),
    mutation(
        "an SDK that may be missing",
        "EX503",
        (DETECTION, "    try:\n        names", "    import rknnlite\n\n    try:\n        names"),
    ),
    mutation(
        "an SDK that may raise",
        "EX503",
        (
            DETECTION,
            "    try:\n        names",
            "    try:\n        import rknnlite\n\n        rknnlite.api.probe()\n    except ImportError:\n        return None\n    try:\n        names",
        ),
    ),
    mutation(
        "a detector that sleeps",
        "EX504",
        (
            DETECTION,
            "    try:\n        names",
            "    import time\n\n    time.sleep(2)\n    try:\n        names",
        ),
    ),
    mutation(
        "a program without a limit",
        "EX504",
        (
            DETECTION,
            "    try:\n        names",
            '    import subprocess\n\n    try:\n        subprocess.run(["lspci"])\n        names',
        ),
    ),
]

STATES = [
    mutation(
        "something in the state",
        "EX601",
        (ENGINE, STEP, f'            inference_state["step"] = 1\n{STEP}'),
    ),
    mutation(
        "another state", "EX601", (ENGINE, STEP, STEP.replace("inference_state", '{"step": 1}'))
    ),
    mutation(
        "an updated state",
        "EX601",
        (ENGINE, STEP, f"            inference_state.update(step=1)\n{STEP}"),
    ),
    mutation(
        "a session of the class",
        "EX602",
        (
            ENGINE,
            '    """The engine that exo loads as `rkllama`."""\n',
            '    """The engine that exo loads as `rkllama`."""\n\n    session = {}\n',
        ),
    ),
    mutation(
        "exo's own session",
        "EX602",
        (
            ENGINE,
            "        self.session: dict[str, Any] = {}  # exo's is shared by all engines of the process\n",
            "",
        ),
    ),
    mutation(
        "exo's own clear_session()",
        "EX603",
        (ENGINE, "async def clear_session(", "async def clear("),
    ),
    mutation(
        "a cache without an end",
        "EX604",
        (ENGINE, STEP, f"            self._seen[request_id] = input_data\n{STEP}"),
    ),
    mutation(
        "requests that are never dropped",
        "EX604",
        (
            BACKEND,
            "answer = self._answers.pop(request_id, None)",
            "answer = self._answers.get(request_id)",
        ),
        (BACKEND, "        self._answers.clear()\n", ""),
    ),
    mutation(
        "an input that grows", "EX605", (ENGINE, STEP, f"            input_data += 1\n{STEP}")
    ),
    mutation(
        "a backend that writes into its input",
        "EX605",
        (
            BACKEND,
            "        answer = self._answers.get(request_id)\n",
            "        x.fill(0)\n        answer = self._answers.get(request_id)\n",
        ),
    ),
    mutation(
        "the prefix of exo's RKLLM engine",
        "EX606",
        (METRICS, "_PREFIX = __package__", '_PREFIX = "rkllm"'),
    ),
    mutation(
        "exo's own prefix",
        "EX606",
        (
            METRICS,
            'BACKEND_UP = _metric(Gauge, "backend_up"',
            'UP = Gauge("exo_up", "Up")\nBACKEND_UP = _metric(Gauge, "backend_up"',
        ),
    ),
    mutation("a label a request", "EX607", (METRICS, '("outcome",)', '("outcome", "request_id")')),
]

LOADING = [
    mutation(
        "models that import exo",
        "EX701",
        (
            MODELS,
            "from typing import Any\n",
            "from typing import Any\n\nfrom exo.models import model_cards\n",
        ),
    ),
    mutation(
        "a package that imports exo",
        "EX701",
        (
            INIT,
            "from typing import TYPE_CHECKING\n",
            "from typing import TYPE_CHECKING\n\nfrom exo.inference.shard import Shard\n",
        ),
    ),
    mutation(
        "a package that imports its engine",
        "EX701 EX702",
        (
            INIT,
            "if TYPE_CHECKING:\n",
            "from .engine import RkllamaInferenceEngine\n\nif TYPE_CHECKING:\n",
        ),
    ),
    mutation(
        "torch at the top of the detector",
        "EX702",
        (DETECTION, "from pathlib import Path\n", "from pathlib import Path\n\nimport torch\n"),
    ),
    mutation(
        "torch at the top of the models",
        "EX702",
        (MODELS, "from typing import Any\n", "from typing import Any\n\nimport torch\n"),
    ),
    mutation(
        "transformers in the package",
        "EX702",
        (
            INIT,
            "from typing import TYPE_CHECKING\n",
            "from typing import TYPE_CHECKING\n\nfrom transformers import AutoTokenizer\n",
        ),
    ),
    mutation(
        "a print at the import",
        "EX703",
        (MODELS, "_MODELS = (\n", 'print("models")\n\n_MODELS = (\n'),
    ),
    mutation(
        "an exit at the import",
        "EX703",
        (
            DETECTION,
            "# Names as the kernel's",
            "import sys\n\nif not Path('/dev/rknpu').exists():\n    sys.exit('no NPU')\n# Names as the kernel's",
        ),
    ),
    mutation(
        "a thread at the import",
        "EX703",
        (
            ENGINE,
            "_log = logging",
            "import threading\n\nthreading.Thread(target=print).start()\n_log = logging",
        ),
    ),
    mutation(
        "a module that was renamed",
        "EX704",
        (ENGINE, "from .sampling import sample", "from .sampler import sample"),
    ),
    mutation("a name that was renamed", "EX704", (BACKEND, "class Backend:", "class NpuBackend:")),
    mutation(
        "a library that nobody requires",
        "EX705",
        (DETECTION, "from pathlib import Path\n", "from pathlib import Path\n\nimport pyudev\n"),
    ),
]

MUTATIONS = [
    *PROJECT,
    *ENTRY_POINTS,
    *PACKAGING,
    *ENGINES,
    *CARDS,
    *DETECTORS,
    *STATES,
    *LOADING,
]
