"""exo 0.3: what the cards of models say, and how their files are fetched."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hub import serve
from node_0_3 import node
from toy_plugin import MODEL, READS, make, python_path, write_model

pytestmark = pytest.mark.usefixtures("home")


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
    return lambda: serve({"organization/toy": folder})


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
