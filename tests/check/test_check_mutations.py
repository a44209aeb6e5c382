"""No miss: the plugins of `plugins/`, broken in one way at a time."""

from pathlib import Path

import pytest
from checking import faults, plugin
from exo_engine_check.run import all_checks
from mutations import CARDS, DETECTORS, MADE, READ, RUN, Mutation, apply

# Checks that look at what others have made the plugin do.
MADE_BY = {"EX004": ["EX915"], "EX952": ["EX602"]}
# What reports what a plugin can do, and no fault: test_check_report.py. reuse() is the template's.
ABILITIES = {name for name in all_checks() if name.startswith(("EX82", "EX86"))}
# copier's answers have a test of their own, and exo's own faults test_check_patches.py.
ELSEWHERE = {"EX207", "EX812", *(name for name, check in all_checks().items() if check.host_fault)}


@pytest.mark.parametrize("mutation", READ, ids=lambda mutation: mutation.name)
def test_a_broken_plugin_is_found_by_reading(tmp_path: Path, mutation: Mutation) -> None:
    copy = plugin(tmp_path)
    apply(copy, mutation)
    messages = faults(copy, static=True)
    assert list(messages) == [mutation.id]
    assert mutation.says in " ".join(messages[mutation.id])


@pytest.mark.parametrize("mutation", RUN, ids=lambda mutation: mutation.name)
def test_a_broken_plugin_is_found_by_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutation: Mutation
) -> None:
    monkeypatch.setattr("exo_engine_check.processes.ANSWER_SECONDS", 1.5)
    copy = plugin(tmp_path)
    apply(copy, mutation)
    assert faults(copy, static=True) == {}
    messages = faults(copy, mutation.id, *MADE_BY.get(mutation.id, []))
    assert list(messages) == [mutation.id]
    assert mutation.says in " ".join(messages[mutation.id])


def test_a_default_run_says_no_more_than_it_has_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exo_engine_check.processes.ANSWER_SECONDS", 1.5)
    copy = plugin(tmp_path)
    for mutation in (CARDS[-1], DETECTORS[2], MADE[2]):
        apply(copy, mutation)
    assert list(faults(copy)) == ["EX405", "EX605", "EX502"]


def test_every_check_has_a_mutation() -> None:
    assert all_checks().keys() - ABILITIES - ELSEWHERE == {m.id for m in (*READ, *RUN)}
