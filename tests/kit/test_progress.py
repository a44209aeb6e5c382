"""What is being done is said on a terminal, and nowhere else."""

import os
import pty
import subprocess
import sys

import pytest
from command import BACKEND, PYTHONPATH
from plugin import PACKAGE
from test_generate import toy_folder

ON_A_TERMINAL = f"""
import sys, time
from types import ModuleType
import huggingface_hub
from toy import ToyBackend
from {PACKAGE}.kit.command import progress
from {PACKAGE}.kit.command.cli import main

progress._QUIET_SECONDS = progress._EVERY_SECONDS = 0.05
slow, folder, argv = sys.argv[1], sys.argv[2], sys.argv[3:]
phases = ["warming up", "measuring answer 1"] if slow == "warming" else [slow]
make_line, drawn = progress._line, set()

def line():
    live = make_line()
    update = live.update

    def draw(*args, description):
        update(*args, description=description)
        live.refresh()
        drawn.add(description)

    live.update = draw
    return live

def wait_until_drawn():
    # A phase that is slow enough to be seen, on a machine of any speed.
    phase, end = phases.pop(0), time.monotonic() + 30
    while sys.stderr.isatty() and not any(phase in text for text in drawn):
        assert time.monotonic() < end, drawn
        time.sleep(0.01)

progress._line = line

def snapshot_download(*_, **__):
    wait_until_drawn()
    return folder

class Slow(ToyBackend):
    files = ("*.weights",) if slow == "fetching" else ()

    def load(self, *args):
        if slow == "loading":
            wait_until_drawn()
        super().load(*args)

    def step(self, request_id, x):
        if slow in ("reading", "warming") and x.shape[1] > 1 and phases:
            wait_until_drawn()
        return super().step(request_id, x)

huggingface_hub.snapshot_download = snapshot_download
module = sys.modules["{BACKEND}"] = ModuleType("{BACKEND}")
module.Backend = Slow
from {PACKAGE}.plugin import PLUGIN
sys.exit(main(PLUGIN, argv))
"""


def run_on_a_terminal(terminal, model_id, slow, *argv):
    """What came to stdout and stderr, which are one terminal, or two pipes."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    environment = os.environ | {"PYTHONPATH": PYTHONPATH, "TERM": "xterm"}
    command = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, slow, str(toy_folder(model_id)), *argv],
        env=environment,
        stdout=theirs if terminal else subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 4096):
            seen += piece
    except OSError:  # how a terminal says that nobody is left
        pass
    os.close(ours)
    out = command.communicate()[0]
    assert command.returncode == 0
    return out, seen


GENERATE = ("generate", "xy", "--raw", "--max-tokens", "3")
BENCH = ("bench", "--prompt", "xy", "--raw", "--max-tokens", "3", "--runs", "1")


@pytest.mark.parametrize("slow", ["fetching", "loading", "reading"])
def test_progress_is_seen_on_a_terminal_and_goes_when_text_comes(model_id, slow):
    _, seen = run_on_a_terminal(True, model_id, slow, *GENERATE)
    assert slow.encode() in seen
    assert seen.rindex(b"\x1b[2K") < seen.index(b"z <stop>\r\n")  # the line is taken away
    last = seen.splitlines()[-1]
    assert b"3 tokens, " in last
    assert b"cut at --max-tokens" in last


def test_the_progress_of_a_bench_is_seen(model_id):
    _, seen = run_on_a_terminal(True, model_id, "warming", *BENCH)
    assert b"warming up" in seen
    assert b"measuring answer 1" in seen
    assert seen.rindex(b"\x1b[2K") < seen.index(b"decode ")


@pytest.mark.parametrize("argv", [GENERATE, BENCH])
def test_no_progress_is_written_to_a_file(model_id, argv):
    out, seen = run_on_a_terminal(False, model_id, "loading", *argv)
    assert out
    assert seen == b""
