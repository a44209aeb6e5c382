"""Nodes of exo 0.3 around the toy plugin, one of their own for a test or shared in a module."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
from node_0_3 import Node, node
from toy_plugin import MODEL, make, python_path

Start = Callable[..., Node]


class Nodes:
    """Nodes on which a toy is ready, one for each toy, and what was done with its device."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._stack = folder, ExitStack()
        self._shared: dict[str, Node] = {}
        self._count = count(1)

    def started(self, backend: str = "", **settings: str) -> Node:
        """One of its own, that a test may end."""
        folder = self._folder / str(next(self._count))
        folder.mkdir()
        plugin, notes = make(folder / "plugins", backend), folder / "notes"
        notes.touch()
        settings |= {"TOY_NOTES": str(notes)}
        manager = node(folder, python_path=python_path(plugin), **settings)
        exo = self._stack.enter_context(manager)
        exo.pid = exo.place(MODEL)
        exo.notes = lambda: notes.read_text().splitlines()
        return exo

    def shared(self, backend: str = "") -> Node:
        """One that other tests use too: it has to be as ready afterwards as it was."""
        if backend not in self._shared:
            self._shared[backend] = self.started(backend)
        return self._shared[backend]

    def close(self) -> None:
        """End all of them."""
        self._stack.close()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """This module's nodes, which share a home."""
    folder = tmp_path_factory.mktemp("nodes")
    made = Nodes(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXO_HOME", str(folder / "home"))
        yield made
        made.close()


@pytest.fixture
def started(nodes: Nodes) -> Start:
    """Function `started(backend)`: a node of its own."""
    return nodes.started


@pytest.fixture
def shared(nodes: Nodes) -> Start:
    """Function `shared(backend)`: a node that other tests use too."""
    return nodes.shared


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An exo home of its own, and a file for the toy's notes."""
    monkeypatch.setenv("TOY_NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("EXO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
