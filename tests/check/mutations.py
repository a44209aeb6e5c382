"""Ways to break the plugins in `plugins/`, each with the checks that have to find it.

What ruff or mypy finds in a rendered plugin by itself (unused names, wrong attributes of the
package's own modules) is no row here.
"""
# ruff: noqa: E501 - a row of a table is read in one line

from dataclasses import dataclass
from pathlib import Path

CONFIG, INIT = "pyproject.toml", "exo_steps/__init__.py"
ENGINE, MODELS = "exo_steps/engine.py", "exo_steps/models.py"
DETECTION, METRICS = "exo_steps/detection.py", "exo_steps/metrics.py"
TODAY, TODAY_ENGINE = "exo_steps/today.py", "exo_steps/today_engine.py"


@dataclass(frozen=True)
class Mutation:
    """What an author did, the check that says so, and one word of its sentence."""

    name: str
    id: str
    says: str
    edits: tuple[tuple[str, str, str], ...]  # file, old ("" for all of it), new


def row(name: str, id_: str, says: str, *edits: tuple[str, str, str]) -> Mutation:
    return Mutation(name, id_, says, edits)


def apply(plugin: Path, change: Mutation) -> None:
    """Make the changes; each of them has to have something to change."""
    for file, old, new in change.edits:
        path = plugin / file
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{old!r} is not in {file}"
        path.unlink()
        if old or new:
            path.write_text(text.replace(old, new) if old else new, encoding="utf-8")


ENTRY = 'steps = "exo_steps.engine:StepsInferenceEngine"'
IN_MODELS, IN_ENGINE = '"""The models."""\n', "import asyncio\n"
DETECT = "def detect_device() -> str | None:"
ASK = "    try:\n        text ="
SDK = "    try:\n        import steps_sdk\n\n        return str(steps_sdk.name())\n    except Exception:\n        pass\n"
STEP = "            output = self.step(request_id, shard, input_data)\n"
REQUIRES = "dependencies = [\n"
# What a patch of exo's may do wrong: the API waits for the prompt's step, and that for the last token.
WHOLE = """
FIRST = Node.process_prompt

async def process_prompt(self, base, prompt, request_id=None, *rest):
    await FIRST(self, base, prompt, request_id, *rest)
    while not self.buffered_token_output.get(request_id, ([], False))[1]:
        await asyncio.sleep(0.005)

Node.process_prompt = process_prompt
"""

# Found without running anything of the plugin.
READ = [
    row("broken TOML", "EX001", "no TOML", (CONFIG, "[build-system]", "[build-system")),
    row("a syntax error", "EX002", "no Python", (METRICS, "try:", "try")),
    row("an ignore without a reason", "EX003", "reason", (CONFIG, "[tool.exo-engine]", '[tool.exo-engine.ignore]\nEX503 = ""\n\n[tool.exo-engine]')),
    row("a limit without a reason", "EX004", "without a reason", (CONFIG, "[tool.exo-engine]", '[tool.exo-engine.cannot]\nreuse = ""\n\n[tool.exo-engine]')),
    row("a limit of no row", "EX004", "no row", (CONFIG, "[tool.exo-engine]", '[tool.exo-engine.cannot]\nspeed = "slow"\n\n[tool.exo-engine]')),
    row("an ignore of no check", "EX003", "no check", (CONFIG, "[tool.exo-engine]", '[tool.exo-engine.ignore]\nEX999 = "gone"\n\n[tool.exo-engine]')),
    row("no engine", "EX101", "inference_engines", (CONFIG, f'[project.entry-points."exo.inference_engines"]\n{ENTRY}\n', "")),
    row("no models", "EX101", "exo.models", (CONFIG, '[project.entry-points."exo.models"]\nsteps = "exo_steps.models:MODELS"\n', "")),
    row("no detector", "EX101", "detectors", (CONFIG, '[project.entry-points."exo.device_detectors"]\n', "[tool.nothing]\n")),
    row("a group in the singular", "EX104", "should be", (CONFIG, '"exo.inference_engines"', '"exo.inference_engine"')),
    row("a group with hyphens", "EX104", "should be", (CONFIG, '"exo.device_detectors"', '"exo.device-detectors"')),
    row("a group with an underscore", "EX104", "should be", (CONFIG, '"exo.models"', '"exo_models"')),
    row("a value without a colon", "EX105", "module.path:Name", (CONFIG, "exo_steps.models:MODELS", "exo_steps.models")),
    row("a hyphen in the module", "EX105", "module.path:Name", (CONFIG, "exo_steps.models:", "exo-steps.models:")),
    row("extras in the value", "EX105", "module.path:Name", (CONFIG, "models:MODELS", "models:MODELS [npu]")),
    row("a nested attribute", "EX105", "module.path:Name", (CONFIG, "models:MODELS", "models:Cards.MODELS")),
    row("a stale module", "EX106", "not here", (CONFIG, "exo_steps.detection:", "exo_steps.detect:")),
    row("a stale package", "EX106", "not here", (CONFIG, "exo_steps.detection:", "exo_stepz.detection:")),
    row("a renamed class", "EX107", "is StepsEngine meant", (ENGINE, "class StepsInferenceEngine(", "class StepsEngine(")),
    row("a renamed dict", "EX107", "is MODELS meant", (CONFIG, "models:MODELS", "models:MODEL")),
    row("the name of a built-in engine", "EX109", "called rkllm", (CONFIG, ENTRY, ENTRY.replace("steps =", "rkllm ="))),
    row("PyPI's exo", "EX201", "another project", (CONFIG, REQUIRES, f'{REQUIRES}    "exo",\n')),
    row("exo from its repository", "EX201", "the host", (CONFIG, REQUIRES, f'{REQUIRES}    "exo @ git+https://github.com/a/b",\n')),
    row("an exact pin", "EX202", "0.20.0", (CONFIG, "prometheus-client>=0.20", "prometheus-client==0.21.1")),
    row("a lower bound", "EX202", "2.0.0", (CONFIG, "numpy>=2.0", "numpy>=2.1")),
    row("an upper bound", "EX202", "2.0.0", (CONFIG, "numpy>=2.0", "numpy>=1.26,<2")),
    row("a library that moves a pin", "EX202", "rich", (CONFIG, REQUIRES, f'{REQUIRES}    "typer>=0.9",\n')),
    row("no README is named", "EX203", "README", (CONFIG, 'readme = "README.md"\n', "")),
    row("the README is gone", "EX203", "not here", ("README.md", "", "")),
    row("no licence", "EX203", "licence", (CONFIG, 'license = "Apache-2.0"\nlicense-files = ["LICENSE"]\n', "")),
    row("the licence's text is gone", "EX203", "not here", ("LICENSE", "", "")),
    row("no requires-python", "EX205", "missing", (CONFIG, 'requires-python = ">=3.11"\n', "")),
    row("Python 3.13 only", "EX205", "3.11", (CONFIG, '">=3.11"', '">=3.13"')),
    row("a version that is none", "EX205", "no version", (CONFIG, '">=3.11"', '"three"')),
    row("py.typed is gone", "EX206", "py.typed", ("exo_steps/py.typed", "", "")),
    row("a project called exo", "EX109", "called exo", (CONFIG, 'name = "exo-steps"', 'name = "exo"')),
    row("an undeclared library", "EX210", "no requirement", (ENGINE, IN_ENGINE, f"{IN_ENGINE}import yaml\n")),
    row("an undeclared SDK in a function", "EX210", "no requirement", (ENGINE, "            folder = await", "            import steps_runtime\n\n            folder = await")),
    row("an SDK that is no library's", "EX210", "no requirement", (DETECTION, SDK, "    import steps_sdk\n\n")),
    row("a library of an extra", "EX210", "only the extra npu", (CONFIG, '[project.entry-points."exo.models"]', '[project.optional-dependencies]\nnpu = ["pyyaml"]\n\n[project.entry-points."exo.models"]'), (ENGINE, IN_ENGINE, f"{IN_ENGINE}import yaml\n")),
    row("torch at the top of the engine", "EX211", "torch", (CONFIG, REQUIRES, f'{REQUIRES}    "torch",\n'), (ENGINE, IN_ENGINE, f"{IN_ENGINE}import torch\n")),
    row("transformers in the package", "EX211", "transformers", (INIT, "", "from transformers import AutoTokenizer\n")),
    *(row(f"no {name}()", "EX301", name, (ENGINE, f"async def {name}(", f"async def _no_{name}(")) for name in ("encode", "decode", "sample", "infer_tensor", "load_checkpoint", "ensure_shard")),
    row("no base class", "EX302", "InferenceEngine", (ENGINE, "Engine(InferenceEngine):", "Engine:")),
    *(row(f"a sync {name}()", "EX303", "not async", (ENGINE, f"async def {name}(", f"def {name}(")) for name in ("encode", "sample", "infer_tensor", "ensure_shard")),
    row("decode() that yields", "EX303", "yields", (ENGINE, "return str(self.tokenizer.decode(tokens.tolist()))", "yield str(self.tokenizer.decode(tokens.tolist()))")),
    row("encode() without the shard", "EX304", "encode", (ENGINE, "encode(self, shard: Any, prompt: str)", "encode(self, prompt: str)")),
    row("infer_tensor() without the state", "EX304", "infer_tensor", (ENGINE, "input_data: Any, inference_state: Any = None", "input_data: Any")),
    row("ensure_shard() with a path", "EX304", "ensure_shard", (ENGINE, "ensure_shard(self, shard: Any)", "ensure_shard(self, shard: Any, path: Any)")),
    row("a static decode()", "EX304", "decode", (ENGINE, "    async def decode(", "    @staticmethod\n    async def decode(")),
    row("a method without self", "EX304", "encode", (ENGINE, "encode(self, shard: Any", "encode(shard: Any")),
    row("sample() as in the guide", "EX304", "'temp'", (ENGINE, "x: Any, temp: float = 0.0, top_p: float = 1.0", "x: Any")),
    row("sample() with another word", "EX304", "temp", (ENGINE, "temp: float", "temperature: float")),
    row("a constructor without parameters", "EX304", "too many", (ENGINE, "__init__(self, shard_downloader: Any)", "__init__(self)")),
    row("a constructor with two", "EX304", "'device'", (ENGINE, "(self, shard_downloader: Any)", "(self, shard_downloader: Any, device: str)")),
    row("the downloader as in the guide", "EX307", "gets 1", (ENGINE, "ensure_shard(shard, type(self).__name__)", "ensure_shard(shard)")),
    row("a method that is not there", "EX309", "forget", (ENGINE, "def forget(", "def _forget(")),
    row("the class name of exo's", "EX109", "of its own", (CONFIG, "StepsInferenceEngine", "DummyInferenceEngine"), (ENGINE, "StepsInferenceEngine", "DummyInferenceEngine")),
    row("partial shards are unknown", "EX313", "layers", (ENGINE, "is_last_layer()", "model_id"), (ENGINE, "is_first_layer()", "model_id")),
]  # fmt: skip

# Found by running the plugin.
CARDS = [
    row("models that are a text", "EX400", "no dict", (MODELS, IN_MODELS, f'{IN_MODELS}TITLE = "x"\n'), (CONFIG, "models:MODELS", "models:TITLE")),
    row("models that are a list", "EX400", "no dict", (MODELS, IN_MODELS, f"{IN_MODELS}IDS = [1]\n"), (CONFIG, "models:MODELS", "models:IDS")),
    row("an engine that is a function", "EX602", "fails", (CONFIG, "engine:StepsInferenceEngine", "detection:detect_device")),
    row("a detector that is a value", "EX501", "can't be called", (CONFIG, "detection:detect_device", "models:MODELS")),
    row("models that are a list of pairs", "EX400", "no dict", (MODELS, "PRETTY", "MODELS = list(MODELS)\n\nPRETTY")),
    row("a card without layers", "EX401", "layers", (MODELS, '"layers": 4, ', "")),
    row("a card that is none", "EX401", "no dict", (MODELS, "PRETTY", 'MODELS["other-steps"] = None\n\nPRETTY')),
    row("layers of 0", "EX401", "0", (MODELS, '"layers": 4', '"layers": 0')),
    row("layers as a text", "EX401", "'4'", (MODELS, '"layers": 4', '"layers": str(4)')),
    row("repo keyed by the engine's name", "EX401", "not StepsInferenceEngine", (MODELS, '"StepsInferenceEngine"', '"steps"')),
    row("repo that is a text", "EX401", "no dict", (MODELS, '{"StepsInferenceEngine": "organization/tiny"}', '"organization/tiny"')),
    row("an address", "EX401", "https", (MODELS, '"organization/tiny"', '"https://huggingface.co/organization/tiny"')),
    row("an empty repository", "EX401", "''", (MODELS, '"organization/tiny"', '""')),
    row("an id of exo's", "EX405", "llama-3.2-1b", (MODELS, "PRETTY", 'MODELS["llama-3.2-1b"] = dict(MODELS["tiny-steps"])\n\nPRETTY')),
    row("an id of the real exo's", "EX405", "nemotron-70b", (MODELS, "tiny-steps", "nemotron-70b")),
]  # fmt: skip

DETECTORS = [
    row("a parameter", "EX501", "arguments", (DETECTION, "detect_device()", "detect_device(root)")),
    row("an async detector", "EX501", "async", (DETECTION, "def detect", "async def detect")),
    row("a bool", "EX502", "False", (DETECTION, "        return None\n    return None", "        return False\n    return False")),
    row("one machine, then another", "EX502", "and then", (DETECTION, DETECT, f"SEEN = []\n\n\n{DETECT}"), (DETECTION, ASK, f"    SEEN.append(1)\n    if len(SEEN) % 2:\n        return 'steps'\n{ASK}")),
    row("a detector that raises", "EX502", "no NPU", (DETECTION, ASK, f'    raise RuntimeError("no NPU")\n{ASK}')),
    row("a file that is missing", "EX503", "are missing", (DETECTION, "except (OSError, ValueError):", "except ValueError:")),
    row("a file that holds something else", "EX503", "something else", (DETECTION, "except (OSError, ValueError):", "except OSError:")),
    row("an SDK that is missing", "EX503", "SDKs are missing", (DETECTION, SDK, "    import importlib\n\n    importlib.import_module('steps_sdk')\n")),
    row("an SDK that raises", "EX503", "SDKs raise", (DETECTION, "except Exception:", "except ImportError:")),
    row("an SDK that lies", "EX503", "gives 1", (DETECTION, "str(steps_sdk.name())", "steps_sdk.name()")),
    row("a program that is missing", "EX503", "missing", (DETECTION, "except (OSError, subprocess.SubprocessError):", "except subprocess.SubprocessError:")),
    row("a detector that says yes", "EX503", "as here", (DETECTION, ASK, f"    return 'steps'\n{ASK}")),
    row("a detector that asks the network", "EX502", "asks example.com", (DETECTION, ASK, f"    import socket\n\n    try:\n        socket.create_connection(('example.com', 80), 0.2)\n    except OSError:\n        pass\n{ASK}")),
    row("a detector that sleeps", "EX502", "takes", (DETECTION, ASK, f"    import time\n\n    time.sleep(1.2)\n{ASK}")),
    row("a detector that hangs", "EX502", "has not answered", (DETECTION, ASK, f"    import time\n\n    time.sleep(600)\n{ASK}")),
    row("a program without a limit", "EX503", "programs hang", (DETECTION, ", timeout=0.2", ""), (DETECTION, '["steps-smi"]', '["true"]')),
]  # fmt: skip

IMPORTS = [
    row("an import that fails", "EX701", "not_there", (ENGINE, "from .metrics", "from . import not_there\nfrom .metrics")),
    row("a name that was renamed", "EX701", "TOKENS", (METRICS, "TOKENS", "COUNTED")),
    row("an exit", "EX701", "sys.exit", (DETECTION, DETECT, f'import sys\n\nsys.exit("no NPU")\n\n\n{DETECT}')),
    row("a metric of exo's", "EX701", "Duplicated", (METRICS, "try:\n", 'from prometheus_client import Gauge\nimport exo.inference.rkllm.metrics\n\nUP = Gauge("rkllm_server_up", "Up")\ntry:\n')),
    row("models that import exo", "EX702", "import exo", (MODELS, IN_MODELS, f"{IN_MODELS}from exo.inference.shard import Shard\n")),
    row("a package that imports its engine", "EX702", "import exo", (INIT, "", "from exo_steps.engine import Tokenizer\n")),
    row("a slow import", "EX703", "s to import", (MODELS, IN_MODELS, f"{IN_MODELS}import time\n\ntime.sleep(1.2)\n")),
    row("a thread", "EX704", "thread", (ENGINE, IN_ENGINE, f"{IN_ENGINE}import threading\nimport time\n\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n")),
    row("a process", "EX704", "process", (ENGINE, IN_ENGINE, f'{IN_ENGINE}import subprocess\n\nsubprocess.Popen(["sleep", "9"])\n')),
    row("a socket", "EX704", "socket", (ENGINE, IN_ENGINE, f"{IN_ENGINE}import socket\n\nS = socket.socket()\n")),
    row("an event loop", "EX704", "event loop", (ENGINE, IN_ENGINE, f"{IN_ENGINE}LOOP = asyncio.new_event_loop()\n")),
    row("logging for everybody", "EX704", "configures logging", (ENGINE, IN_ENGINE, f"{IN_ENGINE}import logging\n\nlogging.basicConfig(level=10)\n")),
    row("an environment for everybody", "EX704", "OMP_NUM_THREADS", (ENGINE, IN_ENGINE, f"{IN_ENGINE}import os\n\nos.environ['OMP_NUM_THREADS'] = '4'\n")),
    row("a signal", "EX704", "SIGTERM", (ENGINE, IN_ENGINE, f"{IN_ENGINE}import signal\n\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n")),
]  # fmt: skip

MADE = [
    row("no shard at first", "EX602", "no shard", (ENGINE, "        self.shard: Any = None\n", "")),
    row("the downloader is not kept", "EX602", "no shard_downloader", (ENGINE, "        self.shard_downloader = shard_downloader\n", "        self.loader = shard_downloader\n"), (ENGINE, "await self.shard_downloader", "await self.loader")),
    row("exo's prefix", "EX605", "rkllm_tokens", (METRICS, '"exo_steps_tokens"', '"rkllm_tokens"')),
    row("a metric that is made once", "EX953", "Duplicated", (METRICS, "except ValueError", "except KeyError")),
    row("a print", "EX952", "stdout", (ENGINE, "        self.shard_downloader = shard_downloader\n", '        self.shard_downloader = shard_downloader\n        print("made")\n')),
]  # fmt: skip

DRIVEN = [
    row("the tokenizer under another name", "EX801", "tokenizer", (ENGINE, "self.tokenizer", "self.words")),
    row("two tokens at once", "EX801", "fails", (ENGINE, "np.array([np.argmax(x[0, -1])])", "np.array([1, 2])")),
    row("logits that are no array", "EX801", "no array", (ENGINE, "        return logits\n", "        return logits.tolist()\n")),
    row("something in the state", "EX801", "inference_state", (ENGINE, STEP, f'{STEP}            inference_state["step"] = 1\n')),
    row("another state", "EX801", "inference_state", (ENGINE, "return output, inference_state", 'return output, {"step": 1}')),
    row("an input that grows", "EX804", "read-only", (ENGINE, STEP, f"            input_data += 0\n{STEP}")),
    row("an answer of one node alone", "EX804", "an answer on two nodes", (ENGINE, "        if not shard.is_last_layer():\n", "        if not (shard.is_first_layer() and shard.is_last_layer()):\n            raise ValueError('whole models only')\n        if not shard.is_last_layer():\n")),
    row("another answer of two nodes", "EX804", "two nodes give", (ENGINE, "shard.get_layer_count() / shard.n_layers", "1.0")),
    row("requests that mix", "EX805", "among others", (ENGINE, "inputs = self.requests.setdefault(request_id, [])", "self.requests.setdefault(request_id, [])\n        inputs = ALL\n        if x.shape[1] > 1:\n            inputs.clear()"), (ENGINE, "MAX_REQUESTS = 32", "ALL = []\nMAX_REQUESTS = 32"), (ENGINE, "        try:\n            output", "        await asyncio.sleep(0)\n        try:\n            output")),
    row("an end token of 0 is none", "EX806", "not 0", (ENGINE, "vocabulary[end]", "vocabulary[end] or None")),
    row("a sleep on the loop", "EX807", "time.sleep", (ENGINE, STEP, f"            __import__('time').sleep(0.05)\n{STEP}")),
    row("work on the loop", "EX807", "the event loop waits", (ENGINE, STEP, f"            t = __import__('time')\n            end = t.thread_time() + 1.1\n            while not self.requests and t.thread_time() < end:\n                pass\n{STEP}")),
    row("a request on the loop", "EX807", "connect", (ENGINE, "            folder = await", "            import socket\n\n            try:\n                socket.create_connection(('127.0.0.1', 9), 0.1)\n            except OSError:\n                pass\n            folder = await")),
    row("an error without a word", "EX808", "no text", (ENGINE, 'raise EngineError(f"the step failed: {error}") from error', "raise EngineError from error")),
    row("an engine that an error ends", "EX808", "after", (ENGINE, "            self.forget(request_id)\n", "            self.forget(request_id)\n            self.shard_downloader = self.shard = None\n")),
    row("requests that are never dropped", "EX809", "grows", (ENGINE, "MAX_REQUESTS = 32", "MAX_REQUESTS = 10**9")),
    row("a backend that leaks", "EX809", "a list of ndarray", (ENGINE, "        inputs.append(hidden)\n", "        inputs.append(hidden)\n        LEAK.append(hidden)\n"), (ENGINE, "MAX_REQUESTS = 32", "LEAK = [None] * 60\nMAX_REQUESTS = 32")),
    row("a label for each request", "EX810", "label", (METRICS, '("phase",)', '("request_id",)'), (ENGINE, 'labels("decode")', "labels(request_id)")),
    row("a limit that is none", "EX004", "and it can", (CONFIG, "[tool.exo-engine]", '[tool.exo-engine.cannot]\nstreaming = "x"\n\n[tool.exo-engine]')),
    row("a buffer that is used again", "EX813", "used again", (ENGINE, "        logits = np.zeros((1, 1, 257), dtype=np.float32)\n", "        logits = LOGITS\n        logits[:] = 0\n"), (ENGINE, "MAX_REQUESTS = 32", "LOGITS = np.zeros((1, 1, 257), dtype=np.float32)\nMAX_REQUESTS = 32")),
    row("a step that swallows errors", "EX808", "swallowed", (ENGINE, 'raise EngineError(f"the step failed: {error}") from error', "output = np.zeros((1, 1, 257), dtype=np.float32)")),
    row("states of arrays alone that are never dropped", "EX809", "grows", (ENGINE, "        inputs.append(hidden)\n", "        inputs.append(hidden)\n        STATES[request_id] = np.ones(9)\n"), (ENGINE, "MAX_REQUESTS = 32", "STATES = {f'{n}': np.ones(9) for n in range(60)}\nMAX_REQUESTS = 32")),
    row("a plain call that the loop waits in", "EX807", "exo_steps/engine.py:", (ENGINE, STEP, f"            if not self.requests:\n                __import__('select').select([], [], [], 0.8)\n{STEP}")),
    row("a label by another name", "EX810", "label", (ENGINE, 'labels("decode")', "labels(request_id)")),
]  # fmt: skip

HOST = [
    row("hidden states are a prompt", "EX906", "taken for a prompt", (ENGINE, "            if not np.issubdtype(x.dtype, np.integer):\n                raise ValueError(\"the first layer wants ids\")\n", "")),
    row("a client waits for the whole answer", "EX915", "nothing until", (ENGINE, IN_ENGINE, f"{IN_ENGINE}from exo.orchestration.node import Node\n"), (ENGINE, "MAX_REQUESTS = 32", f"{WHOLE}\n\nMAX_REQUESTS = 32")),
]  # fmt: skip

TODAYS = [
    row("no card for exo 0.3", "EX851", "no card", (TODAY, '        (root / "cards" / "tiny.toml").write_text(CARD)\n', "")),
    row("a card with a key that exo doesn't know", "EX851", "refuses the card", (TODAY, "hidden_size = 1", "hidden = 1")),
    row("a card with the hub's id", "EX851", "does not begin with", (TODAY, '"exo_steps/tiny-steps"', '"organization/tiny"')),
    row("a card of another family", "EX851", "the family", (TODAY, 'family = "steps"\n[', 'family = "llama"\n[')),
    row("a builder that fails", "EX852", "the runner fails", (TODAY_ENGINE, "    def build(self) -> Any:\n", "    def build(self) -> Any:\n        raise RuntimeError('no device')\n")),
    row("an answer without usage", "EX852", "usage", (TODAY_ENGINE, "usage_of(task.count), ", "None, ")),
    row("an answer without an end", "EX852", "finish_reason", (TODAY_ENGINE, 'usage_of(task.count), "length"', "usage_of(task.count), None")),
    row("another answer each time", "EX852", "and then", (TODAY_ENGINE, "if params.temperature else None", "if True else None")),
    row("requests of exo 0.3 that mix", "EX853", "among others", (TODAY_ENGINE, "task.count % 26", "(task.count + 7 * len(self.tasks) - 7) % 26")),
    row("cancels are not read", "EX854", "still busy", (TODAY_ENGINE, "if self.tasks.pop(task_id, None):", "if False:")),
    row("an error that ends the runner", "EX855", "the runner", (TODAY_ENGINE, "                yield task_id, ErrorChunk(", "                raise ValueError('no images')\n                yield task_id, ErrorChunk(")),
    row("an error without a word", "EX855", "without an error", (TODAY_ENGINE, "                yield task_id, ErrorChunk(model=self.model_id, error_message=\"text alone\")\n", "")),
    row("a runner that hears no SIGTERM", "EX856", "goes on", (TODAY_ENGINE, "    def warmup(self) -> None:\n        return", "    def warmup(self) -> None:\n        __import__('signal').signal(15, 1)")),
    row("a client of exo 0.3 waits for the whole answer", "EX857", "in one chunk", (TODAY_ENGINE, "                yield task_id, self.chunk(task)", "                parts = [self.chunk(task) for _ in range(task.left)]\n                values = vars(parts[-1]) | {'text': ''.join(part.text for part in parts)}\n                yield task_id, TokenChunk(**values)")),
    row("a seed that counts for nothing", "EX858", "with the same seed", (TODAY_ENGINE, "random.Random(params.seed)", "random.Random()")),
]  # fmt: skip

RUN = [*CARDS, *DETECTORS, *IMPORTS, *MADE, *DRIVEN, *HOST, *TODAYS]
