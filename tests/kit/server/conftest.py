"""What the tests of HTTP share."""

import pytest

from exo_kit.kit.server import client as client_module


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs these names none."""
    for name in client_module._PROXIES:
        monkeypatch.delenv(name, raising=False)
