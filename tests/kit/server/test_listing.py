"""`models` says what the server has, and which of this plugin's models that is."""

import asyncio
import json

import pytest
from hosting import nobody_is_connected

from exo_kit.kit.command import cli
from exo_kit.kit.command.models import line
from exo_kit.kit.repository.files import downloads_folder
from exo_kit.kit.server.models import Served
from exo_kit.models import MODELS
from exo_kit.plugin import PLUGIN


@pytest.fixture
def listing(server, capsys):
    """Function `listing()`: what the command says, on one line."""

    def run():
        assert cli.main(PLUGIN, ["models"]) == 0
        return " ".join(capsys.readouterr().out.split())

    return run


def test_each_of_the_servers_models_and_whose_it_is(server, listing):
    first = MODELS.table[0]
    server.models = [first.repository.rpartition("/")[2], "my-own-7b"]
    output = listing()
    assert f"{server.models[0]} │ {first.id} │" in output
    assert "my-own-7b │ none │" in output
    assert 'Model("my-own-7b", "my-own-7b", "owner/my-own-7b", 0), # write' in output


def test_nothing_is_left_open(server, listing):
    listing()
    asyncio.run(nobody_is_connected(server))


def test_no_server_is_a_sentence(server, capsys):
    server.stop()
    assert cli.main(PLUGIN, ["models"]) == 1
    assert f"no server at {server.url}" in capsys.readouterr().err


def test_layers_stand_in_the_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("EXO_HOME", str(tmp_path))
    for name, config in (
        ("mine/Big-7B", {"num_hidden_layers": 31}),
        ("mine/Seeing-3B", {"text_config": {"num_hidden_layers": 26}}),
    ):
        folder = downloads_folder(name)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config))
    expected = '    Model("big-7b", "Big-7B", "mine/Big-7B", 31),'
    assert line(Served("mine/Big-7B")) == expected
    assert line(Served("Big-7B", root="mine/Big-7B")) == expected
    assert line(Served("mine/Seeing-3B")).endswith("26),")


@pytest.mark.parametrize("name", ['a", evil(), "', "/srv/models/x.gguf", "../../etc", "a\nb", "/"])
def test_a_line_is_plain_python_whatever_a_server_calls_its_models(name):
    text = line(Served(name)).strip().partition("#")[0].rstrip().rstrip(",")
    made = eval(text, {"__builtins__": {}, "Model": lambda *words: words})
    assert len(made) == 4
