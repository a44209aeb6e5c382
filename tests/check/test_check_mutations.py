"""No miss: the plugins of `plugins/`, broken in one way at a time."""

from pathlib import Path

import pytest
from checking import found, plugin
from exo_engine_check.checks import all_checks
from mutations import READ, RUN, Mutation, apply

# copier's answers have a test of their own.
ELSEWHERE = {"EX207"}


@pytest.mark.parametrize("mutation", READ, ids=lambda mutation: mutation.name)
def test_a_broken_plugin_is_found_by_reading(tmp_path: Path, mutation: Mutation) -> None:
    copy = plugin(tmp_path, mutation.plugin)
    apply(copy, mutation)
    faults = found(copy, static=True)
    assert list(faults) == [mutation.id]
    assert mutation.says in " ".join(faults[mutation.id])


@pytest.mark.parametrize("mutation", RUN, ids=lambda mutation: mutation.name)
def test_a_broken_plugin_is_found_by_running(tmp_path: Path, mutation: Mutation) -> None:
    copy = plugin(tmp_path, mutation.plugin)
    apply(copy, mutation)
    assert found(copy, static=True) == {}
    faults = found(copy)
    assert mutation.id in faults
    assert mutation.says in " ".join(faults[mutation.id])
    assert len(faults) <= 4, faults


def test_every_check_has_a_mutation() -> None:
    assert all_checks().keys() - ELSEWHERE == {m.id for m in (*READ, *RUN)}
