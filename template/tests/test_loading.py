import pytest
from exo.inference.inference_engine import InferenceEngine, get_inference_engine
from exo.inference.plugin_discovery import load_inference_engine
from plugin import ENGINE_CLASS, ENGINE_NAME, PACKAGE


def test_the_loaded_engine_is_the_plugins_and_not_a_built_in(engine):
    assert type(engine).__module__ == f"{PACKAGE}.engine"
    assert type(engine).__name__ == ENGINE_CLASS
    assert isinstance(engine, InferenceEngine)


def test_exos_other_door_gives_the_same_class(engine, downloader):
    assert type(get_inference_engine(ENGINE_NAME, downloader)) is type(engine)


def test_loading_asks_for_no_files(engine, downloader):
    assert engine.shard is None
    assert engine.shard_downloader is downloader
    assert downloader.calls == []


def test_an_unknown_name_is_refused(downloader):
    with pytest.raises(ValueError, match=ENGINE_NAME):
        load_inference_engine(f"no-{ENGINE_NAME}", downloader)
