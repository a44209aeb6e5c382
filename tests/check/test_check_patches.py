"""Each patch of the template's is missed where it is deleted, on the stand-in."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import variants
from exo_engine_check.run import Options, check

# The checks that see the fault that a patch is for.
SEEN_BY = {
    "know_the_node": "EX902",
    "keep_the_engine": "EX901",
    "raise_later_errors": "EX903",
    "end_orphans": "EX905",
    "end_cut_answers": "EX904",
    "refuse_other_layers": "EX907",
    "one_look_at_a_time": "EX908",
    "whole_text": "EX911",
    "first_token_or_error": "EX912",
    "notice_clients": "EX913",
    "close_at_the_end": "EX914",
    "close_at_quit": "EX914",
}
# Tests of the kit see them.
UNSEEN = {"keep_the_tokenizer", "hand_messages_over", "drop_unread_tokens"}
PATCH = re.compile(r"^@patches\(.*?\)\n(?=def (\w+)\()", re.MULTILINE | re.DOTALL)


def hosts(plugin: Path) -> list[Path]:
    return list(plugin.glob("exo_*/kit/hosts/**/*.py"))


@pytest.mark.parametrize("variant", variants())
def test_every_patch_is_known(plugin_of: Callable[[str], Path], variant: str) -> None:
    texts = [path.read_text(encoding="utf-8") for path in hosts(plugin_of(variant))]
    assert {name for text in texts for name in PATCH.findall(text)} == SEEN_BY.keys() | UNSEEN


# Layers and whole answers go the same ways, but for what an engine keeps, and how it fails.
CASES = [("numpy", name) for name in SEEN_BY]
CASES += [("openai", name) for name in ("know_the_node", "raise_later_errors")]


@pytest.mark.parametrize(("variant", "name"), CASES)
def test_a_patch_that_is_deleted_is_missed(
    plugin_of: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variant: str,
    name: str,
) -> None:
    monkeypatch.setattr("exo_engine_check.processes.ANSWER_SECONDS", 1.5)
    copy = Path(shutil.copytree(plugin_of(variant), tmp_path / "exo-plugin"))
    for path in hosts(copy):
        text = path.read_text(encoding="utf-8")
        changed = PATCH.sub(lambda match: "" if match[1] == name else match[0], text)
        path.write_text(changed, encoding="utf-8")
    report = check(copy, Options(select=[SEEN_BY[name]], strict=True))
    assert {result.id for result, _ in report.faults} == {SEEN_BY[name]}


SHARED = "self._caches[request_id] = self._caches[other]"


def test_a_cache_that_two_requests_share_is_a_fault(
    plugin_of: Callable[[str], Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(plugin_of("numpy"), tmp_path / "exo-plugin"))
    [backend] = copy.glob("exo_*/backend.py")
    text = backend.read_text(encoding="utf-8")
    start = text.index("    def reuse(")
    end = text.index("\n    def ", start)
    share = f"    def reuse(self, request_id, other, length):\n        {SHARED}\n"
    backend.write_text(text[:start] + share + text[end:], encoding="utf-8")
    report = check(copy, Options(select=["EX812"]))
    assert [fault.message for _, fault in report.faults] == [
        "after another request has used its state, a request gives other logits"
    ]
