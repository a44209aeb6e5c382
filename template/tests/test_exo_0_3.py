"""exo 0.3 finds this plugin through its entry point, loads it and answers (on the stand-in)."""

from importlib import import_module
from importlib.metadata import distributions, entry_points

import pytest
from node_0_3 import node
from plugin import ENGINE_NAME, PACKAGE

GROUP = "exo_engine_template.plugins"


@pytest.fixture
def plugin():
    """What the plugin hands to its kit."""
    return import_module(f"{PACKAGE}.plugin").PLUGIN


def test_the_launcher_of_exo_0_3_finds_the_plugin(plugin):
    [point] = [p for p in entry_points(group=GROUP) if p.module == f"{PACKAGE}.plugin"]
    assert (point.name, point.load()) == (ENGINE_NAME, plugin)
    assert (plugin.protocol, plugin.package, plugin.family) == (1, PACKAGE, ENGINE_NAME)
    assert plugin.models is import_module(f"{PACKAGE}.models").MODELS


# Never in one environment: exo 0.0 has the same name, and finds the plugin by itself.
HAS_EXO_0_0 = any(d.name == "exo" and d.version.startswith("0.0") for d in distributions())


@pytest.mark.skipif(HAS_EXO_0_0, reason="this environment has exo 0.0")
def test_exo_0_3_loads_the_plugin_and_it_answers(device, tmp_path, plugin):
    models = plugin.models
    with node(tmp_path) as exo:
        cards = exo.cards()
        exo.place(f"{PACKAGE}/{models.by_id[device.model_id].id}")
        message = getattr(device, "message", "Hi")  # an older tests/device.py has none
        streamed, whole = exo.ask(message, "1", stream=True), exo.ask(message, "2")
        modules = exo.modules()
        exo.send(delete=True)
        assert exo.wait_for("ended")["more"] == 0
    assert set(cards) == {f"{PACKAGE}/{model.id}" for model in models.table}
    assert {card["family"] for card in cards.values()} == {ENGINE_NAME}
    assert all(card["storage_size"]["in_bytes"] > 0 for card in cards.values())
    assert streamed.text == whole.text == device.answer
    assert whole.last["finish_reason"] == "stop"
    assert whole.last["usage"]["prompt_tokens"] > 0
    # The runner has the device; exo's own process has no part of its SDK.
    assert f"{PACKAGE}.models" in modules
    assert f"{PACKAGE}.backend" not in modules
