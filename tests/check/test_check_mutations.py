"""No miss: the rendered plugin, broken in one way at a time."""

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
from checking import copy_of, ids
from exo_engine_check import source
from exo_engine_check.checks import repo_review_checks
from mutations import MUTATIONS, Mutation, apply


@pytest.fixture
def plugin(rkllm_plugin: Path, tmp_path: Path) -> Path:
    return copy_of(rkllm_plugin, tmp_path / "exo-rkllm")


@pytest.fixture(autouse=True, scope="module")
def read_once() -> Iterator[None]:
    """All files but the broken one are the same each time; what was parsed of them is kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "Module", functools.cache(source.Module))
        yield


def test_the_plugin_is_clean_before(plugin: Path) -> None:
    assert ids(plugin) == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_broken_plugin_is_found(plugin: Path, mutation: Mutation) -> None:
    apply(plugin, mutation)
    assert set(ids(plugin)) == set(mutation.id.split())


def test_every_static_check_has_a_mutation() -> None:
    static = {name for name, c in repo_review_checks().items() if c.family != "exo-import"}
    assert static == {name for mutation in MUTATIONS for name in mutation.id.split()}
    assert len(MUTATIONS) >= 50
