"""The launcher of exo 0.3: what it refuses, what it offers, and who takes part."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from node_0_3 import STAND_IN, node
from toy_plugin import READS, make, python_path, write_model

STANDIN_0_0 = STAND_IN.parent / "standin"


pytestmark = pytest.mark.usefixtures("home")


def launch(*path: Path, **settings: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `exo-kit exo` with these folders on its path."""
    tests = STAND_IN.parent
    packages = [each for each in sys.path if "site-packages" in each or "python3" in each]
    parts = [*map(str, path), str(tests), str(tests / "kit"), *packages]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "exo_kit", "exo", "--place", "none"],
        env=os.environ | {"PYTHONPATH": ":".join(parts)} | settings,
        input="",
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def changed(folder: Path, file: str, before: str, after: str) -> Path:
    """A copy of the stand-in with one thing other."""
    shutil.copytree(STAND_IN / "exo", folder / "exo")
    path = folder / "exo" / file
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    return folder


@pytest.mark.parametrize(
    ("file", "before", "after", "words"),
    [
        (
            "worker/runner/bootstrap.py",
            "bound_instance: BoundInstance",
            "instance: BoundInstance",
            "bootstrap.entrypoint takes no bound_instance",
        ),
        (
            "worker/runner/bootstrap.py",
            "            event_sender=event_sender,\n",
            "            events=event_sender,\n",
            "MlxBuilder is not called with cancel_receiver, event_sender, model_id",
        ),
        (
            "worker/runner/bootstrap.py",
            "exo.worker.engines.mlx.builder",
            "exo.worker.engines.metal.builder",
            "does not import exo.worker.engines.mlx.builder itself",
        ),
        (
            "records.py",
            "    is_thinking: bool = False\n",
            "    is_thinking: bool = False\n    shade: int\n",
            "exo.shared.types.chunks.TokenChunk asks for shade",
        ),
        (
            "records.py",
            "    cached_tokens: int = 0\n",
            "    cached: int = 0\n",
            "",
        ),
        (
            "worker/engines/base.py",
            "    def step(self)",
            "    def steps(self)",
            "exo.worker.engines.base.Engine asks for close serve_prefill steps submit warmup",
        ),
        (
            "shared/models/model_cards.py",
            "_BUILTIN_CARD_DIRS",
            "_CARD_DIRS",
            "no attribute '_BUILTIN_CARD_DIRS'",
        ),
        (
            "main.py",
            "def exo_shard_downloader",
            "def shard_downloader",
            "no attribute 'exo_shard_downloader'",
        ),
    ],
)
def test_another_exo_is_refused_in_one_sentence(tmp_path, file, before, after, words):
    plugin = make(tmp_path / "plugins")
    code, out, error = launch(plugin, changed(tmp_path / "other", file, before, after))
    if not words:  # a change that nothing depends on
        assert code == 0, error
        return
    assert (code, out) == (1, "")
    [line] = error.splitlines()
    assert line.startswith("exo-kit: this exo is not the one that this plugin knows")
    assert words in line
    assert "Nothing was changed" in line


def test_a_module_that_has_moved_is_refused(tmp_path):
    other = tmp_path / "other"
    shutil.copytree(STAND_IN / "exo", other / "exo")
    (other / "exo/worker/runner/supervisor.py").rename(other / "exo/worker/supervisor.py")
    main = other / "exo/main.py"
    main.write_text(
        main.read_text().replace("exo.worker.runner import super", "exo.worker import super")
    )
    code, out, error = launch(make(tmp_path / "plugins"), other)
    assert (code, out) == (1, "")
    assert "No module named 'exo.worker.runner.supervisor'" in error


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ((), "exo is not installed in this environment"),
        ((STANDIN_0_0,), "this environment has exo 0.0, which finds exo-kit by itself"),
        (("another",), "this 'exo' is another project"),
        (("broken",), "exo can't be imported here: it is broken"),
    ],
)
def test_no_exo_and_other_ones_are_refused(tmp_path, path, words):
    for name, text in {"another": "", "broken": "raise RuntimeError('it is broken')"}.items():
        (tmp_path / name / "exo").mkdir(parents=True)
        (tmp_path / name / "exo/__init__.py").write_text(text)
    places = [tmp_path / part for part in path]
    code, out, error = launch(make(tmp_path / "plugins"), *places)
    assert (code, out) == (1, "")
    [line] = error.splitlines()
    assert words in line
    assert (sys.version_info >= (3, 13)) or "exo 0.0" in line or "takes Python 3.13" in line


def test_a_backend_that_can_t_be_imported_is_said_and_nothing_starts(tmp_path):
    plugin = make(tmp_path / "plugins", "\nimport a_missing_sdk\n")
    code, out, error = launch(plugin, STAND_IN)
    assert (code, out) == (1, "")
    assert error.splitlines()[-1] == "exo-kit: No module named 'a_missing_sdk'"


def test_exo_s_options_are_exo_s_and_the_address_of_its_api_too(tmp_path):
    plugin = make(tmp_path / "plugins")
    arguments = ("--offline", "--all-models", "--api-port", "5")
    with node(tmp_path, *arguments, python_path=python_path(plugin)) as exo:
        assert exo.events[0]["more"] == ["exo", "--api-port", "5", "--offline"]


def test_two_plugins_answer_on_one_node_and_a_broken_one_is_left_out(tmp_path):
    plugins = [
        make(tmp_path / "plugins"),
        make(tmp_path / "plugins", "\nimport os; os.environ['SDK'] = '1'\n", "exo_second"),
        make(tmp_path / "plugins", "\nimport a_missing_sdk\n", "exo_broken"),
        make(tmp_path / "plugins", package="exo_old"),
    ]
    old = plugins[3] / "exo_old/kit/plugin.py"
    old.write_text(
        old.read_text().replace("protocol: ClassVar[int] = 1", "protocol: ClassVar[int] = 9")
    )
    with node(tmp_path, python_path=python_path(*plugins)) as exo:
        assert set(exo.cards()) == {"exo_kit/toy", "exo_second/toy"}
        assert {card["family"] for card in exo.cards().values()} == {"kit", "second"}
        assert "exo_broken is left out: No module named 'a_missing_sdk'" in exo.log
        assert "exo_old is left out: it has protocol 9, not 1" in exo.log
        for model in ("exo_second/toy", "exo_kit/toy"):
            exo.place(model)
            assert exo.ask("a", task=model, max_output_tokens=2).text == "bc"
            exo.send(delete=True)
            exo.wait_for("ended")


def test_models_of_exo_go_to_exo_s_own_function(tmp_path):
    """MLX is not here, so it says what it misses."""
    plugin = make(tmp_path / "plugins")
    folder = tmp_path / "models" / "mlx-community--x"
    folder.mkdir(parents=True)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    cards = tmp_path / "other/exo/shared/models/x.toml"
    changed(tmp_path / "other", "main.py", "x", "x")
    values = {"model_id": "mlx-community/x", "n_layers": 1, "hidden_size": 1, "family": "x"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    lines += ["supports_tensor = false", "tasks = []", "backends = []"]
    cards.write_text("\n".join([*lines, "[storage_size]", "in_bytes = 1"]))
    path = python_path(plugin, tmp_path / "other")
    with node(tmp_path, "--all-models", python_path=path) as exo:
        exo.place("mlx-community/x")
        assert "No module named 'exo.worker.engines.mlx'" in exo.events[-1]["more"]


def test_doctor_says_which_exo_and_which_models_are_here(tmp_path):
    plugin = make(tmp_path / "plugins", READS)
    toy = write_model(tmp_path / "named/toy")
    command = [sys.executable, "-P", "-m", "exo_kit", "doctor"]
    settings = {"EXO_KIT_FOLDERS": str(toy), "EXO_KIT_METRICS_PORT": "9200"}
    env = os.environ | {"PYTHONPATH": python_path(plugin), "COLUMNS": "200"} | settings
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert "0.3, as this plugin knows it" in done.stdout
    assert "1 for exo 0.3, 1 of them here" in done.stdout
    assert "Start it with `exo-kit exo`" in done.stdout
    assert "from port 9200 on" in done.stdout
    assert done.returncode == 0, done.stdout
