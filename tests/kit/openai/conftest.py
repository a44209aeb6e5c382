"""A played server of any kind, and a host that has loaded its model."""

import pytest
from hosting import Host
from played import KINDS, Kind, PlayedServer
from serving import MODEL, SETTINGS


@pytest.fixture
def played(request, exo_home, monkeypatch):
    server = PlayedServer(KINDS[request.param], MODEL.repository)
    server.start()
    monkeypatch.setenv(f"{SETTINGS}URL", server.url)
    monkeypatch.setenv(f"{SETTINGS}PROMPT_MODE", "chat")
    yield server
    server.stop()


@pytest.fixture
async def asking(played, server, device, monkeypatch):
    """A host that has loaded the played server's model."""
    monkeypatch.setenv(f"{SETTINGS}URL", played.url)  # the device's own server is not asked
    host = Host(device)
    await host.load()
    yield host
    await host.engine.close()


@pytest.fixture
def plays(played, monkeypatch):
    """Function: the played server has this stream, or these refusals, from now on."""

    def play(events=None, **members):
        if events is not None:
            members["stream"] = lambda _: events
        monkeypatch.setattr(played, "kind", Kind("somebody", [], "", **members))

    return play
