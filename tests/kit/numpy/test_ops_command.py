"""The ops command: each case in a process of its own, and what it says of the device."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import exo_kit

OWN = """
import ctypes, os, time
import numpy as np
from .kit.llama import llama

print("printed by a driver")

def rotate(x, cos, sin):
    if x.shape[0] == 7:
        ctypes.string_at(0)
    return llama.rotate(x, cos, sin)

def mlp(x, w, op):
    if len(x) == 3:
        time.sleep(600)
    return llama.mlp(x, w, op)

def embed(ids, embedding):
    raise NotImplementedError("no table on this device")

def linear(x, weight, bias):
    if bias is not None:
        raise RuntimeError("no bias yet")
    return llama.linear(x, weight, bias)

OPERATIONS = {"rotate": rotate, "mlp": mlp, "embed": embed, "linear": linear}
"""


@pytest.fixture
def ops(tmp_path):
    """Function `ops(*argv, own)`: the command, of a copy of the plugin with this operations.py."""

    def run(*argv, own=None):
        copy = tmp_path / "plugin" / exo_kit.__name__
        if not copy.exists():
            shutil.copytree(Path(exo_kit.__file__).parent, copy)
        if own is not None:
            (copy / "operations.py").write_text(own)
        command = [sys.executable, "-m", exo_kit.__name__, "ops", *argv]
        return subprocess.run(
            command,
            cwd=copy.parent,
            env={"PATH": "", "COLUMNS": "140", "PYTHONPATH": str(copy.parent)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_a_crash_and_a_loop_end_no_other_case(ops, tmp_path):
    report = tmp_path / "OPERATIONS.md"
    done = ops("--seconds", "3", "--report", str(report), own=OWN)
    assert done.returncode == 1, done.stderr
    rows = [line for line in report.read_text().splitlines() if line.startswith("| ")][2:]
    table = {row.split(" | ")[0][2:]: row.split(" | ") for row in rows}
    assert {name: cells[-1].strip(" |") for name, cells in table.items()} == {
        "embed": "not there",
        "rms_norm": "right",
        "linear": "raised",
        "rotate": "crashed",
        "attend": "right",
        "attention": "not run",
        "mlp": "hung",
        "layer": "not run",
        "logits": "not run",
        "model": "not run",
    }
    assert [cells[1] for cells in table.values()][:3] == ["yours", "reference", "yours"]
    for text in (
        "rotate: crashed: ended by signal 11 (",
        "operations.py",
        "mlp: hung: no answer within 3 s",
        "linear: raised: no bias yet",
        "exo-kit ops --case 'linear bias=1'",
        "embed: not there: no table on this device",
    ):
        assert text in done.stdout
    again = ops("--case", "linear bias=1")
    assert (again.returncode, "no bias yet" in again.stdout) == (1, True)
    assert ops("--case", "linear").returncode == 0
    assert ops("embed").returncode == 2  # nothing was run
    assert ops("lineer").returncode == 2


def test_a_device_that_is_not_there_is_one_sentence(ops):
    done = ops(own="import acme_sdk\nOPERATIONS = {}\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert "the Python package 'acme_sdk' is not installed" in done.stderr
    done = ops(own="import os\nos._exit(3)\n")
    assert "operations.py can't be used: importing it ended with 3" in done.stderr


def test_init_writes_a_file_to_begin_with(ops, tmp_path):
    assert ops("--init").returncode == 0
    assert ops("linear", "--all").returncode == 0
    again = ops("--init")
    assert (again.returncode, "is there already" in again.stderr) == (1, True)
