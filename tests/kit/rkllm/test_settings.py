import pytest

from exo_kit.kit.rkllm.settings import Settings
from exo_kit.kit.settings import SettingError


def url_of(**environ):
    return Settings.from_env({f"RKLLM_SERVER_{name}": text for name, text in environ.items()})


def test_defaults():
    settings = Settings.from_env({})
    assert settings.address.url == "http://localhost:8080"
    assert (settings.kind, settings.model) == ("auto", None)


def test_host_and_port_as_exos_own_engine_has_them():
    assert url_of(HOST="board", PORT="9000").address.url == "http://board:9000"
    assert url_of(HOST="board", URL="https://x/").address.url == "https://x"


def test_urls_that_users_write():
    assert url_of(HOST="::1").address.url == "http://[::1]:8080"
    assert url_of(URL="http://x:1/v1/").address.url == "http://x:1"


def test_every_number_is_read():
    names = ("CONNECT_SECONDS", "SILENCE_SECONDS", "DRAIN_SECONDS", "LOAD_SECONDS")
    environ = {f"RKLLM_{name}": str(i + 1) for i, name in enumerate(names)}
    settings = Settings.from_env(environ)
    assert [getattr(settings, name.lower()) for name in names] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RKLLM_SERVER_URL", "board:8080"),
        ("RKLLM_SERVER_HOST", "me:secret@board"),
        ("RKLLM_SERVER_KIND", "ollama"),
        ("RKLLM_SERVER_PORT", "abc"),
        ("RKLLM_SERVER_PORT", "99999"),
        ("RKLLM_DRAIN_SECONDS", "-1"),
        ("RKLLM_LOAD_SECONDS", "inf"),
        ("RKLLM_SILENCE_SECONDS", "nan"),
    ],
)
def test_a_wrong_value_is_named(name, value):
    with pytest.raises(SettingError, match=name) as caught:
        Settings.from_env({name: value})
    assert "secret" not in str(caught.value)
