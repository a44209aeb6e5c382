"""No miss: the plugins of `plugins/`, broken in one way at a time."""

from pathlib import Path

import pytest
from checking import found, plugin
from exo_engine_check.checks import all_checks
from mutations import CARDS, DETECTORS, HOST, MADE, READ, RUN, Mutation, apply

# Checks that look at what others have made the plugin do.
SHOWN_BY = {"EX004": ["EX823", "EX906", "EX907"], "EX952": ["EX602"]}
# What finds no fault, but what a plugin can do: test_check_report.py.
ABILITIES = {name for name in all_checks() if name.startswith("EX82")}
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
def test_a_broken_plugin_is_found_by_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutation: Mutation
) -> None:
    monkeypatch.setattr("exo_engine_check.running.ANSWER_SECONDS", 0.5)
    copy = plugin(tmp_path, mutation.plugin)
    apply(copy, mutation)
    assert found(copy, static=True) == {}
    faults = found(copy, mutation.id, *SHOWN_BY.get(mutation.id, []))
    assert list(faults) == [mutation.id]
    assert mutation.says in " ".join(faults[mutation.id])


def test_a_default_run_says_no_more_than_it_has_to(tmp_path: Path) -> None:
    copy = plugin(tmp_path)
    for mutation in (CARDS[-1], DETECTORS[2], MADE[2], HOST[0]):
        apply(copy, mutation)
    assert list(found(copy)) == ["EX405", "EX502", "EX605", "EX901"]


def test_every_check_has_a_mutation() -> None:
    assert all_checks().keys() - ABILITIES - ELSEWHERE == {m.id for m in (*READ, *RUN)}
