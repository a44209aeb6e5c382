"""Fixtures of the tests of the runtime in the process."""

import pytest
from played_runtime import GROUPS, Board, Host, compiled


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    """The library of each group, by the group's number; "bare" tells no version."""
    folder = tmp_path_factory.mktemp("runtime")
    made = {}
    more = {"bare121": ("121", None), "bare110": ("110", None), "other": ("121", "1.9.9")}
    for name, (group, version) in ({g: (g, GROUPS[g]) for g in GROUPS} | more).items():
        made[name] = folder / name / "librkllmrt.so"
        made[name].parent.mkdir()
        compiled(group, version, made[name])
    return made


@pytest.fixture
def played(exo_home, tmp_path, monkeypatch):
    made = Board(tmp_path, monkeypatch)
    for name in ("URL", "HOST", "PORT"):
        monkeypatch.delenv(f"RKLLM_SERVER_{name}", raising=False)
    return made


@pytest.fixture(params=GROUPS)
def group(request, libraries, played):
    """Every group's library, one after the other."""
    played.setenv("RKLLM_LIBRARY", str(libraries[request.param]))
    return request.param


@pytest.fixture
def newest(libraries, played):
    played.setenv("RKLLM_LIBRARY", str(libraries["130"]))


@pytest.fixture
async def client():
    made = Host()
    yield made
    await made.engine.close()
