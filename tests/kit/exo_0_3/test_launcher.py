"""The launcher of exo 0.3: what it refuses, what it offers, and who takes part."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from node_0_3 import STAND_IN, node
from toy import write_tokenizer
from toy_hub import serve
from toy_plugin import MODEL, make, python_path

STANDIN_0_0 = STAND_IN.parent / "standin"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An exo home of its own, and a file for the toy's notes."""
    monkeypatch.setenv("TOY_NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("EXO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


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


READS = """
class Backend(Backend):
    files = ("*.json", "*.safetensors")
"""


def write_model(folder: Path, **config: object) -> Path:
    """A toy's files in a folder."""
    shutil.copytree(write_tokenizer("organization/toy"), folder)
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 2} | config))
    (folder / "model.safetensors").write_bytes(b"x" * 1000)
    return folder


def test_a_card_says_what_the_model_s_files_say(tmp_path):
    plugin = make(tmp_path / "plugins", READS)
    toy = write_model(
        tmp_path / "named/toy", hidden_size=64, max_position_embeddings=77, dtype="bfloat16"
    )
    (toy / "chat_template.jinja").write_text("{{ tools }}{{ enable_thinking }}<think>")
    other = write_model(tmp_path / "named/Another-Model")
    settings = {"EXO_KIT_FOLDERS": f"{toy}:{other}"}
    with node(tmp_path, python_path=python_path(plugin), **settings) as exo:
        cards = exo.cards()
        assert "exo_kit/Another-Model is here" in exo.log
        exo.place("exo_kit/Another-Model")
        assert exo.ask("a", max_output_tokens=1).text == "b"
    card = cards[MODEL]
    size = sum(path.stat().st_size for path in toy.iterdir())
    assert card["storage_size"]["in_bytes"] == size
    assert (card["hidden_size"], card["context_length"], card["quantization"]) == (64, 77, "bf16")
    assert card["capabilities"] == ["text", "thinking", "thinking_toggle", "tools"]
    assert (card["family"], card["base_model"]) == ("kit", "Toy 1M")
    assert cards["exo_kit/Another-Model"]["n_layers"] == 2


def test_a_model_that_is_not_here_has_the_size_that_its_name_says(tmp_path, home):
    plugin = make(tmp_path / "plugins", READS)
    shutil.rmtree(home / "downloads")
    with node(tmp_path, python_path=python_path(plugin)) as exo:
        assert exo.cards()[MODEL]["storage_size"]["in_bytes"] == 2_000_000
        assert "exo_kit/toy is downloaded when it is first used" in exo.log


def test_half_a_model_is_told(tmp_path):
    plugin = make(tmp_path / "plugins", READS)
    toy = write_model(tmp_path / "named/toy")
    (toy / "model.safetensors").unlink()
    (toy / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
    )
    (toy / "model-1.safetensors").touch()
    settings = {"EXO_KIT_FOLDERS": str(toy)}
    with node(tmp_path, python_path=python_path(plugin), **settings) as exo:
        assert "model-2.safetensors not here" in exo.log


def test_a_folder_with_weights_of_another_kind_is_whole_where_load_takes_them(tmp_path):
    plugin = make(tmp_path / "plugins", READS + '    local_files = ("*.onnx",)\n')
    toy, other = write_model(tmp_path / "named/toy"), write_model(tmp_path / "named/other")
    (toy / "model.safetensors").rename(toy / "model.onnx")
    (other / "model.safetensors").rename(other / "model.bin")
    settings = {"EXO_KIT_FOLDERS": f"{toy}:{other}"}
    with node(tmp_path, python_path=python_path(plugin), **settings) as exo:
        assert f"exo_kit/toy is here ({toy})" in exo.log
        assert (
            "exo_kit/other is downloaded when it is first used: *.safetensors or *.onnx" in exo.log
        )


@pytest.fixture
def hub(tmp_path: Path) -> Callable[..., object]:
    """Function that serves the toy's repository."""
    folder = write_model(tmp_path / "hub/toy")
    (folder / "unwanted.bin").write_bytes(b"x" * 5000)
    return lambda: serve("organization/toy", folder)


def test_a_model_is_downloaded_under_the_plugin_s_own_id(tmp_path, home, hub):
    plugin = make(tmp_path / "plugins", READS)
    shutil.rmtree(home / "downloads")
    with hub() as address:
        settings = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
        with node(tmp_path, python_path=python_path(plugin), **settings) as exo:
            exo.place(MODEL)
            assert exo.ask("a", max_output_tokens=2).text == "bc"
            progress = [
                event for event in exo.events if event["what"] in ("in_progress", "complete")
            ]
            assert [event["what"] for event in progress][-1] == "complete"
            done, total = progress[-1]["more"]
            assert done == total > 1000
    names = {path.name for path in (tmp_path / "models/exo_kit--toy").iterdir()}
    assert {"model.safetensors", "tokenizer.json", "exo_kit.safetensors.index.json"} <= names
    assert "unwanted.bin" not in names


def test_a_hub_that_can_t_be_reached_is_a_sentence(tmp_path, home):
    plugin = make(tmp_path / "plugins", READS)
    shutil.rmtree(home / "downloads")
    with node(tmp_path, python_path=python_path(plugin), HF_HOME=str(tmp_path / "hf")) as exo:
        exo.send(place=MODEL)
        assert "organization/toy" in exo.wait_for("DownloadFailed")["more"]


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
