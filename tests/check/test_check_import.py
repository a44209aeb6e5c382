"""--import: loaded and driven in a process of its own; whatever the plugin does is a finding."""
# ruff: noqa: E501 - a row of a table is read in one line

import json
import os
import sys
import time
from pathlib import Path

import guide_plugin as guide
import pytest
from checking import copy_of, run
from exo_engine_check.importing import stand_in

EXO_PYTHON = os.environ.get("EXO_PYTHON")

TINY = '''\
"""A model of four layers, without a weight."""

import json


def write(folder):
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 4}))
'''
TINY_CONFIG = guide.GOOD_CONFIG + '\n[tool.exo-engine]\ntiny-model = "exo_myengine.tiny:write"\n'


def with_tiny(folder: Path, **other: str) -> Path:
    """The guide's mended plugin, with a model to be driven with."""
    plugin = guide.mended(folder, **{"config": TINY_CONFIG, **other})
    (plugin / "exo_myengine" / "tiny.py").write_text(other.get("tiny", TINY), encoding="utf-8")
    return plugin


def loaded(plugin: Path, *options: object) -> dict[str, list[str]]:
    """What `--import` found: places and messages by check."""
    code, out, err = run(plugin, "--import", "--select", "EX9", "--format", "json", *options)
    assert err == ""
    faults = json.loads(out)["faults"]
    assert code == (1 if faults else 0)
    found: dict[str, list[str]] = {}
    for fault in faults:
        place = f"{fault['path']}:{fault['line']}: " if fault["path"] else ""
        found.setdefault(fault["id"], []).append(f"{place}{fault['message']}")
    return found


def notes(plugin: Path, *options: object) -> str:
    return "\n".join(json.loads(run(plugin, "--import", "--format", "json", *options)[1])["notes"])


def test_the_stand_in_is_there() -> None:
    assert (stand_in() / "exo" / "inference" / "plugin_discovery.py").is_file()


def test_a_good_plugin_is_driven_on_one_node_and_on_two(tmp_path: Path) -> None:
    plugin = with_tiny(tmp_path)
    assert loaded(plugin) == {}
    assert "answered with 6 tokens, on one node and on two" in notes(plugin)


def test_a_plugin_without_a_tiny_model_is_loaded(tmp_path: Path) -> None:
    plugin = guide.mended(tmp_path)
    assert loaded(plugin) == {}
    assert "not driven" in notes(plugin)


def test_without_import_nothing_is_loaded(tmp_path: Path) -> None:
    plugin = guide.mended(tmp_path, engine=f"{guide.GOOD_ENGINE}\nraise RuntimeError\n")
    assert run(plugin, "--select", "EX9")[0] == 0


def test_the_wheel_is_loaded_as_the_tree_is(tmp_path: Path) -> None:
    from test_rendered_plugin import build_wheel

    plugin = guide.mended(tmp_path / "p", models=f"{guide.MODELS}\nraise OSError('no cards')\n")
    wheel = build_wheel(plugin, tmp_path / "dist")
    line = len(guide.MODELS.splitlines()) + 2
    expected = [
        f"exo_myengine/models.py:{line}: importing exo_myengine.models fails: OSError: no cards"
    ]
    assert loaded(plugin) == loaded(wheel) == {"EX901": expected}


COMPUTED = {
    "layers of zero": ('card(0, "MyInferenceEngine")', "exo offers the model a-my to no MyInferenceEngine: {'layers': 0, 'repo': {'MyInferenceEngine': 'org/a'}}"),
    "another class": ('card(4, "my")', "exo offers the model a-my to no MyInferenceEngine: {'layers': 4, 'repo': {'my': 'org/a'}}"),
    "layers in a text": ('card("4", "MyInferenceEngine")', "exo's offer of a-my fails: TypeError: '<' not supported between instances of 'str' and 'int'"),
    "no card": ("None", "exo's offer of a-my fails: AttributeError: 'NoneType' object has no attribute 'get'"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPUTED)
def test_cards_that_only_the_code_knows_are_asked_of_exo(tmp_path: Path, name: str) -> None:
    value, message = COMPUTED[name]
    models = f"""
def card(layers, owner):
    return {{"layers": layers, "repo": {{owner: "org/a"}}}}


MY_MODELS = {{"a-my": {value}, "b-my": card(4, "MyInferenceEngine")}}
"""
    assert loaded(guide.mended(tmp_path, models=models)) == {"EX906": [message]}


def test_methods_that_only_the_import_shows_are_called_as_exo_would(tmp_path: Path) -> None:
    text = engine(
        "async def sample(self, x):\n    return x[0]\n\n\n"
        "setattr(MyInferenceEngine, 'sample', sample)"
    )
    [message] = loaded(guide.mended(tmp_path, engine=text)).pop("EX912")
    assert message == (
        "sample(x) can't be called as exo does: got an unexpected keyword argument 'temp'"
    )


def engine(body: str) -> str:
    return f"{guide.GOOD_ENGINE}\n{body}\n"


BOMB = """
import threading, time
for _ in range(100000):
    threading.Thread(target=time.sleep, args=(60,)).start()
"""
FORKS = "import os\nwhile True:\n    os.fork()\n"

LINE = len(guide.GOOD_ENGINE.splitlines()) + 2
HOSTILE = {
    "crash": (engine("import os\nos._exit(0)"), {"EX901": ["the process ended with code 0: importing exo_myengine.engine"]}),
    "signal": (engine("import os\nos.kill(os.getpid(), 11)"), {"EX901": ["the process ended with signal SIGSEGV: importing exo_myengine.engine"]}),
    "exit": (engine("import sys\nsys.exit('bye')"), {"EX904": [f"exo_myengine/engine.py:{LINE + 1}: importing exo_myengine.engine ends the process with sys.exit('bye')"]}),
    "raises": (engine("1 / 0"), {"EX901": [f"exo_myengine/engine.py:{LINE}: importing exo_myengine.engine fails: ZeroDivisionError: division by zero"]}),
    "interrupt": (engine("raise KeyboardInterrupt"), {"EX901": [f"exo_myengine/engine.py:{LINE}: importing exo_myengine.engine fails: KeyboardInterrupt"]}),
    "prints": (engine("print('hello\\nworld')"), {"EX903": ["the plugin writes to stdout: 'hello'"]}),
    "writes to the file": (engine("import os\nos.write(1, b'x' * 3_000_000)"), {"EX903": [f"the plugin writes to stdout: {'x' * 80!r}"]}),
    "missing": (engine("import exo_myengine.gone"), {"EX901": [f"exo_myengine/engine.py:{LINE}: importing exo_myengine.engine fails: No module named 'exo_myengine.gone'"]}),
    "not required": (engine("import not_a_library"), {"EX901": [f"exo_myengine/engine.py:{LINE}: importing exo_myengine.engine fails: No module named 'not_a_library'"]}),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_engine_is_a_finding(tmp_path: Path, name: str) -> None:
    source, expected = HOSTILE[name]
    assert loaded(guide.mended(tmp_path, engine=source)) == expected


def test_a_hang_is_ended_in_time(tmp_path: Path) -> None:
    plugin = guide.mended(tmp_path, engine=engine("import time\ntime.sleep(600)"))
    begun = time.monotonic()
    found = loaded(plugin, "--timeout", 2)
    assert time.monotonic() - begun < 10
    assert found == {"EX902": ["after 2 s the plugin had not ended: importing exo_myengine.engine"]}


@pytest.mark.skipif(os.name == "nt", reason="process groups are POSIX's")
def test_what_it_started_ends_with_it(tmp_path: Path) -> None:
    """A child that ignores signals, holds stdout open and would write a file."""
    trace = tmp_path / "trace"
    child = (
        "import signal, time, pathlib; signal.signal(15, signal.SIG_IGN); "
        f"[(pathlib.Path({str(trace)!r}).write_text(str(n)), time.sleep(0.1)) for n in range(600)]"
    )
    start = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {child!r}])"
    plugin = guide.mended(tmp_path / "p", engine=engine(f"{start}\nimport time\ntime.sleep(1)"))
    begun = time.monotonic()
    assert loaded(plugin) == {}
    assert time.monotonic() - begun < 10
    assert trace.is_file()
    last = trace.read_text()
    time.sleep(0.5)
    assert trace.read_text() == last


@pytest.mark.parametrize("body", [BOMB, FORKS], ids=["threads", "forks"])
@pytest.mark.skipif(os.name == "nt", reason="forks are POSIX's")
def test_a_bomb_is_defused(tmp_path: Path, body: str) -> None:
    found = loaded(guide.mended(tmp_path, engine=engine(body)), "--timeout", 20)
    assert "EX905" in found
    assert "the plugin started more than" in found["EX905"][0]


def test_a_thread_that_never_ends_holds_nothing_up(tmp_path: Path) -> None:
    body = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()"
    begun = time.monotonic()
    assert loaded(guide.mended(tmp_path, engine=engine(body))) == {}
    assert time.monotonic() - begun < 10


DETECTORS = {
    "raises": ("raise OSError('no bus')", "the detector mydevice fails: OSError: no bus"),
    "bool": ("return True", "gives True, no name and not None"),
    "empty": ("return ''", "gives '', no name and not None"),
    "another": ("import time\n    return str(time.time_ns())", " and then "),
    "slow": ("import time\n    time.sleep(1.1)", "takes 1.1 s"),
    "hostile": ("class X:\n        def __repr__(self): raise OSError\n        __eq__ = None\n    return X()", "gives a X"),
}  # fmt: skip


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_that_gives_no_answer(tmp_path: Path, name: str) -> None:
    body, says = DETECTORS[name]
    detection = f"def detect_my_device():\n    {body}\n"
    found = loaded(guide.mended(tmp_path, detection=detection))
    assert set(found) == {"EX910"}
    assert says in found["EX910"][0]


CARDS = {
    "circular": ("from exo.models import pretty_name\n" + guide.MODELS, {"EX906", "EX908"}),
    "half": ("import exo.models\nexo.models.pretty_name\n" + guide.MODELS, {"EX906", "EX908"}),
    "a list": ("MY_MODELS = list('ab')\n", {"EX906"}),
    "exo's own": (guide.MODELS.replace("my-model-7b", "llama-3.2-1b"), {"EX909"}),
    "heavy": (f"import sys, types\nsys.modules['torch'] = types.ModuleType('torch')\n{guide.MODELS}", {"EX908"}),
    "slow": (f"import time\ntime.sleep(1.1)\n{guide.MODELS}", {"EX908"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CARDS)
def test_models_that_exo_drops_or_that_cost(tmp_path: Path, name: str) -> None:
    models, expected = CARDS[name]
    assert set(loaded(guide.mended(tmp_path, models=models))) == expected


def test_a_built_in_name_loads_exos_own(tmp_path: Path) -> None:
    config = guide.GOOD_CONFIG.replace(
        'myengine = "exo_myengine.engine', 'dummy = "exo_myengine.engine'
    )
    [message] = loaded(guide.mended(tmp_path, config=config))["EX906"]
    assert message.startswith("exo's discovery of the engine dummy gives exo.inference.")


def test_an_engine_that_cant_be_made(tmp_path: Path) -> None:
    source = guide.GOOD_ENGINE.replace("async def decode(", "async def undecode(")
    [message] = loaded(guide.mended(tmp_path, engine=source))["EX907"]
    assert "fails: TypeError: Can't instantiate abstract class MyInferenceEngine" in message


def test_metrics_that_can_be_registered_once(tmp_path: Path) -> None:
    body = "from prometheus_client import Counter\nC = Counter('exo_myengine_x', 'X')"
    config = guide.GOOD_CONFIG.replace('["numpy"]', '["numpy", "prometheus-client"]')
    [message] = loaded(guide.mended(tmp_path, engine=engine(body), config=config))["EX911"]
    assert "Duplicated timeseries" in message


DRIVEN = {
    "state": ("return logits, inference_state", "return logits, {'n': 1}", "EX912", "inference_state comes back as {'n': 1}"),
    "several tokens": ("return np.array([np.argmax(x[0, -1])])", "return np.array([1, 2])", "EX912", "fails: ValueError"),
    "a float": ("return np.array([np.argmax(x[0, -1])])", "return np.array([1.5])", "EX912", "sample() gives 1.5"),
    "no temperature": ("temp=0.0, top_p=1.0", "top_p=1.0", "EX912", "unexpected keyword argument 'temp'"),
    "one argument": ("ensure_shard(shard, type(self).__name__)", "ensure_shard(shard)", "EX912", "missing 1 required positional argument"),
    "no shard": ("self.shard = None\n        self.tok", "self.tok", "EX912", "has no shard"),
    "in place": ("hidden = input_data.", "input_data[0, 0] = 1\n        hidden = input_data.", "EX912", "read-only"),
    "whole models only": ("if not shard.is_last_layer():\n            return hidden, inference_state", "if not shard.is_last_layer():\n            raise ValueError('whole models only')", "EX913", "whole models only"),
    "another answer": ("int(hidden[0, -1, 0] + 1)", "int(hidden[0, -1, 0] + 1 + shard.start_layer)", "EX913", "two nodes give"),
    "exits": ("        hidden = input_data.", "        raise SystemExit(3)\n        hidden = input_data.", "EX904", "ends the process"),
}  # fmt: skip


@pytest.mark.parametrize("name", DRIVEN)
def test_an_engine_that_fails_when_it_is_driven(tmp_path: Path, name: str) -> None:
    old, new, check, says = DRIVEN[name]
    assert guide.GOOD_ENGINE.count(old) == 1
    found = loaded(with_tiny(tmp_path, engine=guide.GOOD_ENGINE.replace(old, new)))
    assert check in found
    assert says in "\n".join(found[check])


def test_a_tiny_model_that_is_none(tmp_path: Path) -> None:
    found = loaded(with_tiny(tmp_path / "a", tiny="def write(folder):\n    return None\n"))
    assert "writes no config.json" in found["EX912"][0]
    found = loaded(with_tiny(tmp_path / "b", tiny="def scribble(folder):\n    return None\n"))
    assert "has no attribute 'write'" in found["EX912"][0]


def test_a_tiny_model_may_be_one_of_the_plugins(tmp_path: Path) -> None:
    plugin = with_tiny(tmp_path, tiny="def write(folder):\n    return 'my-model-7b'\n")
    assert loaded(plugin) == {}
    assert "answered with 6 tokens" in notes(plugin)


def test_a_python_that_is_none(tmp_path: Path) -> None:
    plugin = guide.mended(tmp_path)
    for python, says in (("/nowhere/python", "no such file"), (os.devnull, "permission denied")):
        code, out, err = run(plugin, "--import", "--python", python)
        assert (code, out) == (2, "")
        assert err.startswith(f"exo-engine: --python {python}: ")
        assert says in err
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho no exo here >&2\nexit 3\n")
    script.chmod(0o755)
    code, _, err = run(plugin, "--import", "--python", script)
    assert code == 2
    assert err == f"exo-engine: --python {script} could not start: no exo here\n"


def test_a_library_that_this_python_lacks_is_not_the_plugins_fault(tmp_path: Path) -> None:
    config = guide.GOOD_CONFIG.replace('["numpy"]', '["numpy", "npu-runtime>=1"]')
    plugin = guide.mended(tmp_path, engine=engine("import npu_runtime"), config=config)
    code, out, err = run(plugin, "--import")
    assert (code, out) == (2, "")
    assert "has no npu_runtime, which the plugin requires" in err


def test_what_the_stand_in_lacks_is_not_the_plugins_fault(tmp_path: Path) -> None:
    plugin = guide.mended(tmp_path, engine=engine("import exo.viz.topology_viz"))
    code, _, err = run(plugin, "--import")
    assert code == 2
    assert "--python" in err


def test_other_plugins_of_this_python_are_left_alone(tmp_path: Path) -> None:
    """An installed plugin that prints and fails is not what is checked."""
    other = tmp_path / "site" / "other-1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (other / "entry_points.txt").write_text("[exo.models]\nmyengine = noisy:X\nother = noisy:X\n")
    (tmp_path / "site" / "noisy.py").write_text("print('noise')\n1 / 0\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}/site" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    assert loaded(guide.mended(tmp_path / "p"), "--python", python) == {}


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = with_tiny(tmp_path / "p")
    before = sorted(plugin.rglob("*"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert loaded(plugin) == {}
    assert sorted(plugin.rglob("*")) == before
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.skipif(
    not EXO_PYTHON, reason="EXO_PYTHON is not set to the Python of an environment with exo"
)
def test_on_a_real_exo(tmp_path: Path, rkllm_plugin: Path) -> None:
    plugin = with_tiny(tmp_path / "p")
    assert loaded(plugin, "--python", EXO_PYTHON) == {}
    said = notes(plugin, "--python", EXO_PYTHON)
    assert "loaded on a real exo" in said
    assert "on one node and on two" in said
    assert loaded(copy_of(rkllm_plugin, tmp_path / "r"), "--python", EXO_PYTHON) == {}
    circular = with_tiny(tmp_path / "c", models=CARDS["circular"][0])
    assert set(loaded(circular, "--python", EXO_PYTHON)) == CARDS["circular"][1]
