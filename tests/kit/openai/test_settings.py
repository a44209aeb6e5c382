"""The environment, right and wrong."""

import pytest
from serving import SETTINGS

from exo_kit.kit.openai.settings import Settings
from exo_kit.kit.settings import SettingError


def settings(**environ):
    return Settings.from_env({f"{SETTINGS}{name}": text for name, text in environ.items()})


def test_defaults():
    values = settings()
    assert values.address.url == "http://localhost:8080"
    assert (values.kind, values.prompt_mode, values.model, values.key) == (
        "auto",
        "auto",
        None,
        None,
    )


def test_a_key_of_somebody_elses_server_is_not_taken():
    assert Settings.from_env({"OPENAI_API_KEY": "sk-theirs"}).key is None


def test_a_key_stands_in_the_environment_or_in_a_file(tmp_path):
    (tmp_path / "key").write_text(" sk-1\n")
    assert settings(API_KEY="sk-2").key == "sk-2"
    assert settings(API_KEY_FILE=str(tmp_path / "key")).key == "sk-1"
    assert "sk-2" not in repr(settings(API_KEY="sk-2"))


def test_every_number_is_read():
    names = ("CONNECT_SECONDS", "SILENCE_SECONDS", "BUSY_SECONDS", "LOAD_SECONDS")
    values = settings(**{name: str(i + 1) for i, name in enumerate(names)})
    assert [getattr(values, name.lower()) for name in names] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("URL", "board:8080"),
        ("KIND", "ollama"),
        ("PROMPT_MODE", "french"),
        ("API_KEY", "sk 1"),
        ("API_KEY", "sk-\u00e9"),
        ("API_KEY_FILE", "/no/such/file"),
        ("BUSY_SECONDS", "-1"),
        ("LOAD_SECONDS", "inf"),
    ],
)
def test_a_wrong_value_is_named_and_a_key_is_not_shown(name, value):
    with pytest.raises(SettingError, match=f"{SETTINGS}{name}") as caught:
        settings(**{name: value})
    assert "sk" not in str(caught.value)
