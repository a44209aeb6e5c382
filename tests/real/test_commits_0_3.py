"""Plugins of two commits of the template on one node of a real exo 0.3, whichever starts it."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import copier
import pytest
from conftest import REPOSITORY, render_into
from nodes_0_3 import install, namespace, node, why_not

HOST = "template/{{ package }}/kit/hosts/exo_0_3/launcher.py"
PROMPT, TOKENS = "The capital of France?", 24
WRITE = """
import sys
from pathlib import Path
from exo_new.kit.llama.random_checkpoint import DEFAULT, write_checkpoint
write_checkpoint(Path(sys.argv[1]), DEFAULT)
"""


def first_commit() -> str:
    """The first commit whose plugins run on exo 0.3; empty without the history."""
    log = ["git", "log", "--diff-filter=A", "--format=%H", "--", HOST]
    done = subprocess.run(log, cwd=REPOSITORY, capture_output=True, text=True)
    return done.stdout.split()[-1] if done.stdout.split() else ""


pytestmark = [
    pytest.mark.skipif(bool(why := why_not()), reason=str(why)),
    pytest.mark.skipif(not first_commit(), reason="this checkout has no history"),
    pytest.mark.xdist_group("real-exo-0-3"),
]


@dataclass(frozen=True)
class Host:
    """An environment with both plugins, a model, and what each one's `generate` says to PROMPT."""

    python: Path
    folder: Path
    answers: dict[str, str]


@pytest.fixture(scope="module")
def host(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """exo with a plugin of the working tree and one of the first commit that runs there."""
    root = tmp_path_factory.mktemp("commits")
    new = render_into(template, root / "exo-new", variant="numpy")
    old, ref = root / "exo-old", first_commit()
    data, source = {"variant": "numpy"}, str(REPOSITORY)
    copier.run_copy(source, old, data=data, vcs_ref=ref, defaults=True, quiet=True)
    python = install(root / "venv", new, old)
    folder = root / "random-model"
    subprocess.run([python, "-c", WRITE, folder], check=True)
    answers = {}
    for package in ("exo_new", "exo_old"):
        command = [python, "-m", package, "generate", PROMPT, "--model", folder]
        command += ["--max-tokens", str(TOKENS)]
        done = subprocess.run([*map(str, command)], capture_output=True, check=True)
        answers[package] = done.stdout.decode("utf-8").removesuffix("\n")
    return Host(python, folder, answers)


@pytest.mark.parametrize("starter", ["exo_new", "exo_old"])
def test_both_answer_whichever_starts_exo(host: Host, tmp_path: Path, starter: str) -> None:
    command = (host.python, "-m", starter, "exo", "--place", "none")
    folders = {f"{package.upper()}_FOLDERS": str(host.folder) for package in host.answers}
    with namespace() as space, node(space, tmp_path, *command, **folders) as exo:
        for package, text in host.answers.items():
            model = f"{package}/{host.folder.name}"
            exo.place(model)
            assert exo.text(model, PROMPT, max_tokens=TOKENS) == text
            assert exo.stream(model, PROMPT, max_tokens=TOKENS).text == text
