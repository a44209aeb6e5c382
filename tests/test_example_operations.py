"""The operations.py of docs/bring-up.md, on its made-up device: what that gets wrong is found."""

import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ACME = """
import numpy as np

class Device:
    def __init__(self, threads):
        assert threads == 1
    def upload(self, weight):
        return weight.copy()
    def matmul(self, x, weight):
        return x @ weight.T
    def rms_norm(self, x, weight, eps):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weight
    def swiglu(self, x, gate, up, down):
        gate = x @ gate.T
        with np.errstate(over="ignore"):
            return (gate / (1 + np.exp(-gate)) * (x @ up.T)) @ down.T
"""


@pytest.fixture
def run(plugin_of: Callable[[str], Path], tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Function `run(eps, *command)`: with the page's operations, on a device with this epsilon."""
    plugin = shutil.copytree(plugin_of("numpy"), tmp_path / "plugin")
    page = (ROOT / "docs/bring-up.md").read_text(encoding="utf-8")
    blocks = map(textwrap.dedent, re.findall(r"^ *```python\n(.*?)```", page, re.S | re.M))
    example = next(block for block in blocks if "import acme" in block)
    (plugin / "exo_numpy/operations.py").write_text(example, encoding="utf-8")

    def call(eps: str, *command: str) -> tuple[int, str]:
        (plugin / "acme.py").write_text(ACME.replace("EPS", eps), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=plugin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout

    return call


def states(board: str) -> dict[str, tuple[str, str]]:
    """Whose each operation is, and what became of it."""
    words = r"(right|wrong|raised|crashed|hung|not there|not run)"
    rows = re.findall(rf"^(\w+) +(yours|reference|all) +\d+ +{words}", board, re.M)
    return {name: (whose, state) for name, whose, state in rows}


def test_the_operations_of_the_page_are_right(run: Callable[..., tuple[int, str]]) -> None:
    code, board = run("eps", "exo_numpy", "ops")
    faults = states(board)
    assert code == 0, board
    own = {name for name, (whose, _) in faults.items() if whose == "yours"}
    assert own == {"linear", "rms_norm", "mlp"}
    assert {state for _, state in faults.values()} == {"right", "not there"}
    assert "the NPU's SwiGLU has no bias" in board


def test_the_one_that_is_wrong_is_found_and_named(run: Callable[..., tuple[int, str]]) -> None:
    code, board = run("1e-6", "exo_numpy", "ops")
    assert code == 1, board
    faults = {name: state for name, (_, state) in states(board).items()}
    assert [name for name, state in faults.items() if state == "wrong"] == ["rms_norm"]
    made_of_it = {name for name, state in faults.items() if state == "not run"}
    assert made_of_it == {"attention", "layer", "logits", "model"}
    assert faults["linear"] == faults["attend"] == "right"
    [case] = re.findall(r"^  exo-numpy ops --case '(rms_norm .*)'$", board, re.M)
    assert run("1e-6", "exo_numpy", "ops", "--case", case)[0] == 1
    assert run("eps", "exo_numpy", "ops", "--case", case)[0] == 0


def test_a_parity_test_names_it_too(run: Callable[..., tuple[int, str]]) -> None:
    which = "tests/test_backend.py::test_a_prompt_has_the_logits_of_llama_py"
    parity = ("pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", "llama", which)
    assert run("eps", *parity)[0] == 0
    code, output = run("eps + 0.1", *parity)
    assert code == 1
    assert re.search(r"layer 0 is the first that differs: .*; there, rms_norm is the first", output)
