"""exo 0.0's patches: they stand in the docs, and a plugin without their folder works."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY
from kit import run as kit
from test_kit import python_for, run_kit  # noqa: F401 - a fixture, of which pytest learns here

ANSWERS = (
    "test_exo_engine.py::test_every_kind_of_backend_answers",
    "test_exo_engine.py::test_every_kind_of_backend_answers_on_two_nodes",
    "test_answers.py::test_text_behind_ids_does_not_begin_the_answer",
)


@pytest.mark.parametrize("variant", ["numpy", "openai"])
def test_the_engine_is_discovered_loaded_and_answers(
    python_for: Callable[..., Path],  # noqa: F811
    template: Path,
    tmp_path: Path,
    variant: str,
) -> None:
    plugin = kit.render(template, tmp_path / "plugin", variant)
    shutil.rmtree(plugin / "exo_kit/kit/hosts/exo_0_0/patches")
    for test in (plugin / "tests/kit").glob("test_patches*.py"):
        test.unlink()
    conftest = plugin / "tests/kit/conftest.py"
    lines = conftest.read_text("utf-8").splitlines()
    left = [line for line in lines if "patched" not in line]
    conftest.write_text("\n".join(left), "utf-8")
    own = ["tests/test_discovery.py", "tests/test_loading.py", "tests/test_contract.py"]
    run_kit(python_for(plugin), plugin, variant, *own, *ANSWERS)


def test_the_docs_have_every_patch() -> None:
    rows = []
    for path in REPOSITORY.glob("template/*/kit/hosts/exo_0_0/patches/*.py"):
        text = path.read_text("utf-8")
        registered = r'@patches\(\s*"exo\.([^"]+)".*?\)\ndef .*?"""(.*?)"""'
        rows += [f"| `{at}` | {fault} |" for at, fault in re.findall(registered, text, re.DOTALL)]
    assert len(rows) > 10
    written = (REPOSITORY / "docs/exo.md").read_text("utf-8").splitlines()
    assert sorted(rows) == sorted(line for line in written if re.match(r"\| `[\w.]+:", line))
