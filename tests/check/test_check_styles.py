"""Other styles of engines, detectors and metrics: no false alarm, and the traps in their forms."""

import sys
from pathlib import Path

import guide_plugin as guide
import pytest
from checking import ids

INIT = """\
        self.shard = None
        self.tokenizer = None
        self.folder = None
"""
CONSTRUCTOR = f"""\
    def __init__(self, shard_downloader):
        self.shard_downloader = shard_downloader
{INIT}"""
ENCODE = """\
    async def encode(self, shard, prompt):
        await self.ensure_shard(shard)
        return np.array(self.tokenizer.encode(prompt))
"""
DECODE = """\
    async def decode(self, shard, tokens):
        await self.ensure_shard(shard)
        return self.tokenizer.decode(tokens.tolist())
"""
SAMPLE = """\
        if x.dtype.kind == "i":
"""
HIDDEN = "        hidden = input_data.astype(np.float32).reshape(1, -1, 1)\n"
LAST = """\
        if not shard.is_last_layer():
            return hidden, inference_state
"""
RETURN = "        return logits, inference_state\n"
LOAD = """\
    async def load_checkpoint(self, shard, path):
        await self.ensure_shard(shard)
"""


def engine(*edits: tuple[str, str]) -> dict[str, str]:
    text = guide.GOOD_ENGINE
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return {"engine.py": text}


def kept(code: str, first: str = "self.seen = {}") -> dict[str, str]:
    """An engine that keeps something for a request, and does something with what it keeps."""
    lines = f"        self.seen[request_id] = input_data\n{code}"
    return engine((HIDDEN, lines + HIDDEN), (INIT, f"{INIT}        {first}\n"))


def sampled(code: str) -> dict[str, str]:
    return engine((SAMPLE, code + SAMPLE))


def stated(code: str, state: str = "inference_state") -> dict[str, str]:
    return engine((HIDDEN, code + HIDDEN), (RETURN, f"        return logits, {state}\n"))


def detector(body: str, top: str = "") -> dict[str, str]:
    return {"detection.py": f"{top}\n\ndef detect_my_device() -> str | None:\n{body}"}


def metrics(code: str) -> dict[str, str]:
    return {"metrics.py": f"from prometheus_client import Counter, Histogram\n\n{code}"}


def in_tests(code: str) -> dict[str, str]:
    return dict.fromkeys(("tests/__init__.py", "test/fakes.py", "test_it.py", "conftest.py"), code)


DATACLASS = """\
    shard_downloader: object
    tokenizer: object = field(default=None, init=False)
    session: dict = field(default_factory=dict, init=False)
    runner: object = field(default=None, init=False)
    seen: dict = field(default_factory={factory}, init=False)

    def __post_init__(self):
        self.shard = self.runner()

    async def clear_session(self):
        self.session.clear()
"""


def dataclass(factory: str = "dict", decorator: str = "@dataclass(eq=False)") -> dict[str, str]:
    return engine(
        ("import numpy as np\n", "from dataclasses import dataclass, field\nimport numpy as np\n"),
        ("class MyInf", f"{decorator}\nclass MyInf"),
        (CONSTRUCTOR, DATACLASS.replace("{factory}", factory)),
        (HIDDEN, f"        self.seen[request_id] = input_data\n{HIDDEN}"),
    )


METHODS = """\
import numpy as np


async def encode(self, shard, prompt):
    return np.array(self.tokenizer.encode(prompt))


async def decode(self, shard, tokens):
    return self.tokenizer.decode(tokens.tolist())
"""
RUNNER = """\
class Runner:
    def __init__(self, shard):
        self.last = shard.end_layer == shard.n_layers - 1

    def run(self, x):
        return x + 1
"""
LATE = """\
def Runner(shard):
    from . import runner

    return runner.Runner(shard)
"""
RESET = """\
        self.reset()

    def reset(self):
        self.forget()
        self.folder = None

    def forget(self):
        self.shard = self.tokenizer = None
"""


def lazily(path: str) -> dict[str, str]:
    code = f"        from .{path} import Runner\n\n        logits = Runner(shard).run(hidden)\n"
    return engine((LAST, code))


def loaded_by(expression: str, more: str = "") -> dict[str, str]:
    method = f"    def load_checkpoint(self, shard, path):\n        return {expression}\n{more}"
    return engine((LOAD, method), ("import numpy", "import asyncio\nimport numpy"))


TRACING = """\
import time


class Recorder:
    def __init__(self):
        self.seen = {}

    async def infer(self, request_id, value):
        time.sleep(0.01)
        self.seen[request_id] = value


async def test_downloader_is_asked(downloader, tokenizer):
    assert not tokenizer.eos_token_id
    await downloader.ensure_shard("shard")
"""
ASKED = """\
    try:
        done = subprocess.run(["npu-smi"], capture_output=True, text=True{timeout})
    except {errors}:
        return None
    return done.stdout.strip() or None
"""
PROGRAM = ASKED.replace("{timeout}", ", timeout=1")
CLIENT = """\
    try:
        import {0}

        return {1}
    except Exception:
        return None
"""
READ = """\
    try:
        return Path("/proc/npu").read_text()
    except {}:
        return None
"""
HELPER = """\
import subprocess
import time


def ask():
    time.sleep(5)
    return subprocess.run(["npu-smi"], capture_output=True, text=True).stdout
"""
SAFE = "    try:\n        return {} or None\n    except Exception:\n        return None\n"

CLEAN = {
    "a dataclass": dataclass("lru.Cache"),
    "methods that the class body imports": {
        "text.py": METHODS,
        **engine((ENCODE, "    from .text import decode, encode\n"), (DECODE, "")),
    },
    "methods that the class body binds together": {
        "text.py": METHODS,
        **engine(
            (ENCODE, "    encode, decode = text.encode, text.decode\n"),
            (DECODE, ""),
            ("import numpy", "from . import text\nimport numpy"),
        ),
    },
    "a call of an async method": loaded_by("self.ensure_shard(shard)"),
    "a call that gives what an async method does": loaded_by(
        "self._load(shard)",
        "\n    def _load(self, shard):\n        return self.ensure_shard(shard)\n",
    ),
    "a call of an inner async function": engine(
        (
            LOAD,
            "    def load_checkpoint(self, shard, path):\n        async def load():\n"
            "            await self.ensure_shard(shard)\n\n        return load()\n",
        )
    ),
    "a call of asyncio": loaded_by("asyncio.to_thread(print, path)"),
    "a call on a pool": loaded_by("asyncio.get_running_loop().run_in_executor(None, print)"),
    "attributes that a method's method sets": engine((INIT, RESET)),
    "attributes that a base's method sets": engine(
        (INIT, "        super().reset()\n"),
        ("class MyInf", f"class Base:\n    def reset(self):\n{INIT}\n\nclass MyInf"),
        ("(InferenceEngine)", "(Base, InferenceEngine)"),
    ),
    "a call of the base's method": engine(
        (
            LOAD,
            f"{LOAD}\n    def infer_prompt(self, *arguments):\n"
            "        return super().infer_prompt(*arguments)\n",
        )
    ),
    "a runner that is imported late": {"runner.py": RUNNER, **lazily("runner")},
    "a runner that a runner imports late": {
        "late.py": LATE,
        "runner.py": RUNNER,
        **lazily("late"),
    },
    "a cache under another name": kept("        kept = self.seen\n        kept.popitem()\n"),
    "a cache in a loop": kept("        for kept in (self.seen,):\n            kept.popitem()\n"),
    "a cache that is made of itself": kept(
        "        self.seen = {k: v for k, v in list(self.seen.items())[-8:]}\n"
    ),
    "a cache that is handed on": kept("        trim(self.seen)\n"),
    "a cache that is handed on by name": kept("        trim(of=self.seen)\n"),
    "a constant of errors": detector(
        PROGRAM.format(errors="_ERRORS"),
        "import subprocess\n\n_BOTH = (OSError, subprocess.SubprocessError)\n"
        "_ERRORS = _BOTH + (ValueError,)\n",
    ),
    "errors of another module": {
        "errors.py": "OF_PROGRAMS = (OSError, ValueError)\n",
        **detector(
            PROGRAM.format(errors="errors.OF_PROGRAMS"), "import subprocess\nfrom . import errors\n"
        ),
    },
    "errors that can't be told": detector(
        "    found = tuple([OSError])\n" + PROGRAM.format(errors="found"), "import subprocess\n"
    ),
    "what a program raises": detector(
        PROGRAM.format(errors="(FileNotFoundError, PermissionError, subprocess.TimeoutExpired)"),
        "import subprocess\n",
    ),
    "what a file raises": detector(
        READ.format("(FileNotFoundError, PermissionError)"), "from pathlib import Path\n"
    ),
    "the library's own error": detector(
        "    try:\n        import npu\n    except ModuleNotFoundError:\n        return None\n"
        "    try:\n        return npu.name()\n    except npu.NPUError:\n        return None\n"
    ),
    "an error below a caught one": detector(
        "    try:\n        raise FileNotFoundError\n    except OSError:\n        return None\n"
    ),
    "an address": detector(
        '    return parse.urlparse("a://b").hostname', "from urllib import parse\n"
    ),
    "the host's name": detector("    return socket.gethostname() or None", "import socket\n"),
    "a socket with a limit": detector(
        CLIENT.format("socket", 'socket.create_connection(("::1", 80), timeout=0.2) and "NPU"')
    ),
    "a socket with a limit by position": detector(
        CLIENT.format("socket", 'socket.create_connection(("::1", 80), 0.2) and "NPU"')
    ),
    "a server with a limit": detector(
        CLIENT.format("requests", 'requests.get("http://[::1]", timeout=1).text')
    ),
    "a namespace": metrics('A = Counter("requests", "Requests", namespace="exo_myengine")\n'),
    "a namespace and a subsystem": metrics(
        'A = Histogram("seconds", "Time", ["phase"], namespace="exo", subsystem="myengine")\n'
    ),
    "a namespace by position": metrics('A = Counter("requests", "Requests", (), "exo_myengine")\n'),
    "a namespace that can't be told": metrics(
        'import os\n\nA = Counter("up", "Up", namespace="exo", subsystem=os.environ["X"])\n'
    ),
    "arguments that can't be told": metrics('A = Counter("requests", "Requests", **options())\n'),
    "a registry of its own": metrics('A = Counter("up", "Up", registry=CollectorRegistry())\n'),
    "labels by name": metrics(
        'NAMES = ("phase",)\nA = Counter("exo_myengine_a", "A", [*NAMES, "model"])\n'
    ),
    "a label that can't be told": metrics(
        'A = Counter("exo_myengine_a", "A", [f"request{kind()}"])\n'
    ),
    "a state that stays here": stated(
        "        state = dict(inference_state or {})\n"
        '        state["past"] = 3\n        self.folder = state\n'
    ),
    "another pair inside": stated(
        "        cache = {}\n        cache['x'] = input_data\n\n"
        "        def work(x):\n            return x, cache\n\n"
    ),
    "another state inside": stated(
        "        def work(x):\n            inference_state = {'x': x}\n"
        "            inference_state['y'] = x\n            return inference_state\n\n"
    ),
    "a result that is divided in place": sampled("        if temp:\n            x /= temp\n"),
    "an input that has another value": stated(
        "        input_data = input_data.copy()\n        input_data[0] = 0\n"
    ),
    "an end token that has another value": sampled(
        "        eos = self.tokenizer.eos_token_id\n        eos = [eos]\n"
        "        if not eos:\n            return x\n"
    ),
    "an argument that is called so": sampled(
        "        eos = self.tokenizer.eos_token_id\n"
        "        if (lambda eos: not eos)([eos]):\n            return x\n"
    ),
    "tests inside the package": in_tests(TRACING),
}


def write(folder: Path, files: dict[str, str]) -> Path:
    plugin = guide.mended(folder)
    return guide.write(plugin, {f"exo_myengine/{name}": text for name, text in files.items()})


@pytest.mark.parametrize("files", CLEAN.values(), ids=list(CLEAN))
def test_another_style_is_clean(tmp_path: Path, files: dict[str, str]) -> None:
    assert ids(write(tmp_path, files)) == []


FOUND = {
    "a dataclass with a dict": ("EX604", dataclass()),
    "a session of a decorated class": (
        "EX602",
        engine(
            ("class MyInf", "@final\nclass MyInf"),
            ("import numpy", "from typing import ClassVar, final\nimport numpy"),
            (CONSTRUCTOR, f"    session: ClassVar[dict] = {{}}\n\n{CONSTRUCTOR}"),
        ),
    ),
    "a call of a plain method": (
        "EX303",
        loaded_by("self._load(shard)", "\n    def _load(self, shard):\n        return shard\n"),
    ),
    "a call of the tokenizer": ("EX303", loaded_by("self.tokenizer.load(path)")),
    "one return of two": (
        "EX303",
        loaded_by("self.ensure_shard(shard)\n        return None"),
    ),
    "a call that runs": ("EX303", loaded_by("asyncio.run(self.ensure_shard(shard))")),
    "attributes that a method sets later": (
        "EX308",
        engine((INIT, RESET.replace("        self.forget()\n", ""))),
    ),
    "a runner that never asks": (
        "EX313",
        {"runner.py": RUNNER.replace("end_layer", "model_id"), **lazily("runner")},
    ),
    "a cache that is only read": (
        "EX604",
        kept(
            "        if request_id in self.seen and len(self.seen) > 3 and self.seen:\n"
            "            print([k for k in self.seen], f'{self.seen}', self.seen.get(1))\n"
        ),
    ),
    "a class of errors": (
        "EX503",
        detector(
            PROGRAM.format(errors="NPUError"),
            "import subprocess\n\n\nclass NPUError(Exception):\n    pass\n",
        ),
    ),
    "a constant of other errors": (
        "EX503",
        detector(
            PROGRAM.format(errors="_ERRORS"),
            "import subprocess\n\n_ERRORS = (ValueError, KeyError)\n",
        ),
    ),
    "one error of a file": (
        "EX503",
        detector(READ.format("PermissionError"), "from pathlib import Path\n"),
    ),
    "another library's error": (
        "EX503",
        detector(
            "    try:\n        import gpu, npu\n    except ImportError:\n        return None\n"
            "    try:\n        return npu.name()\n    except gpu.GPUError:\n        return None\n"
        ),
    ),
    "an error beside a caught one": (
        "EX503",
        detector("    try:\n        raise KeyError\n    except OSError:\n        return None\n"),
    ),
    "a helper that waits": ("EX504 EX504", detector(SAFE.format("ask()"), HELPER)),
    "a module that waits": (
        "EX504 EX504",
        {"probe.py": HELPER, **detector(SAFE.format("probe.ask()"), "from . import probe\n")},
    ),
    "a socket without a limit": (
        "EX504",
        detector(CLIENT.format("socket", 'socket.create_connection(("::1", 80)) and "NPU"')),
    ),
    "no limit by name": (
        "EX504",
        detector(CLIENT.format("requests", 'requests.get("http://[::1]", timeout=None).text')),
    ),
    "exo's namespace": (
        "EX606",
        metrics('A = Counter("exo_myengine_a", "A", namespace="exo")\n'),
    ),
    "the beginning of a name": ("EX606", metrics('A = Counter("exo", "A")\n')),
    "a subsystem of another": (
        "EX606",
        metrics('A = Counter("a", "A", namespace="exo", subsystem="myengines")\n'),
    ),
    "exo's registry by name": (
        "EX606",
        metrics(
            'from prometheus_client import REGISTRY\n\nA = Counter("a", "A", registry=REGISTRY)\n'
        ),
    ),
    "labels that are a constant": (
        "EX607",
        metrics('NAMES = ("request_id",)\nA = Counter("exo_myengine_a", "A", NAMES)\n'),
    ),
    "labels with a constant": (
        "EX607",
        metrics('ID = "request_id"\nA = Counter("exo_myengine_a", "A", labelnames=[ID])\n'),
    ),
    "more labels than a constant": (
        "EX607",
        metrics('B = ["a"]\nA = Counter("exo_myengine_a", "A", [*B, "request_id"])\n'),
    ),
    "a state or a new one": (
        "EX601",
        stated(
            '        inference_state = inference_state or {}\n        inference_state["a"] = 3\n'
        ),
    ),
    "a state where there is none": (
        "EX601",
        stated(
            "        if inference_state is None:\n            inference_state = {}\n"
            "        inference_state.update(past=3)\n"
        ),
    ),
    "a copy of the state": (
        "EX601",
        stated('        state = dict(inference_state or {})\n        state["past"] = 3\n', "state"),
    ),
    "a state of its own": ("EX601", stated('        state = {"past": 3}\n', "state")),
    "a state and more": ("EX601", stated("", '{**(inference_state or {}), "past": 3}')),
    "an input that has another value later": (
        "EX605",
        stated("        input_data[input_data < 0] = 0\n        input_data = input_data.copy()\n"),
    ),
    "an input that a call fills on its way": (
        "EX605",
        stated("        input_data = np.clip(input_data, 0, 1, out=input_data)\n"),
    ),
    "an end token under another name": (
        "EX312",
        sampled(
            "        eos = self.tokenizer.eos_token_id\n        if not eos:\n            eos = 2\n"
        ),
    ),
    "an end token that may be missing": (
        "EX312",
        sampled(
            '        eos: int | None = getattr(self.tokenizer, "eos_token_id", None)\n'
            "        while eos:\n            return x\n"
        ),
    ),
    "an end token on its way": (
        "EX312",
        sampled("        if eos := self.tokenizer.eos_token_id:\n            return eos\n"),
    ),
    "a module of the engine": (
        "EX311 EX312 EX604 EX307",
        {"testing.py": TRACING},
    ),
}


@pytest.mark.parametrize(("found", "files"), FOUND.values(), ids=list(FOUND))
def test_a_fault_in_another_style_is_found(
    tmp_path: Path, found: str, files: dict[str, str]
) -> None:
    assert sorted(ids(write(tmp_path, files))) == sorted(found.split())


def test_the_last_of_two_methods_counts(tmp_path: Path) -> None:
    first = "    async def sample(self, x):\n        return x\n\n"
    sample = "    async def sample(self, x, temp=0.0"
    text = guide.GOOD_ENGINE.replace(sample, first + sample)
    assert ids(guide.mended(tmp_path / "good", engine=text)) == []
    text = guide.GOOD_ENGINE.rstrip() + "\n\n" + first
    assert ids(guide.mended(tmp_path / "bad", engine=text)) == ["EX305"]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this Python knows the syntax")
@pytest.mark.parametrize(("wanted", "found"), [(">=3.12", []), (">=3.11", ["EX002"])])
def test_syntax_of_a_newer_python_is_no_fault(
    tmp_path: Path, wanted: str, found: list[str]
) -> None:
    config = guide.GOOD_CONFIG.replace(">=3.11", wanted)
    plugin = guide.mended(tmp_path, config=config)
    (plugin / "exo_myengine" / "newer.py").write_text("type Ids = list[int]\n", encoding="utf-8")
    assert ids(plugin) == found
