"""The first Ctrl-C ends the command, whatever it is at."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from command import PYTHONPATH
from plugin import PACKAGE
from test_generate import toy_folder, use_template

from exo_kit.kit.command import interrupt as interrupt_module

SECONDS = 20.0  # a process that waits for its work would take 60

PREPARED = f"""
import asyncio, sys, threading, time
from types import ModuleType
from toy import ToyAnswers, ToyBackend

def blocks(*_):
    print("ready", flush=True)
    time.sleep(60)

module = sys.modules["{PACKAGE}.backend"] = ModuleType("{PACKAGE}.backend")

def run(backend, *argv):
    module.Backend = backend
    from {PACKAGE}.kit.command import loaded_model
    from {PACKAGE}.kit.command.cli import main
    from {PACKAGE}.plugin import PLUGIN
    loaded_model.TEMPLATE_SECONDS = 60.0
    sys.exit(main(PLUGIN, argv))
"""

LOAD = """
class Backend(ToyBackend):
    def load(self, *_): blocks()
"""
PREFILL = """
class Backend(ToyBackend):
    def step(self, *_): blocks()
"""
DECODE = """
class Backend(ToyBackend):
    def step(self, request_id, x):
        if x.shape == (1, 1) and self.live: blocks()
        return super().step(request_id, x)
"""
CLOSING = """
class Backend(ToyBackend):
    close = blocks
"""
DOWNLOAD = """
import huggingface_hub
from concurrent.futures import ThreadPoolExecutor

def snapshot_download(*_, **__):  # as the hub does it: such threads are waited for at the end
    ThreadPoolExecutor().submit(blocks).result()

huggingface_hub.snapshot_download = snapshot_download

class Backend(ToyBackend):
    files = ("*.weights",)
"""
SERVER_LOADS = """
class Backend(ToyAnswers):
    async def load(self, *_):
        print("ready", flush=True)
        await asyncio.sleep(60)
"""
SERVER_ANSWERS = """
class Backend(ToyAnswers):
    async def answer(self, request):
        yield self.piece(text="a")
        print("ready", flush=True)
        await asyncio.sleep(60)
"""
SERVER_HOLDS_THE_LOOP = """
class Backend(ToyAnswers):
    async def answer(self, request):
        blocks()
        yield self.piece(text="a")
"""
SERVER_DOES_NOT_CLOSE = """
class Backend(ToyAnswers):
    async def answer(self, request):
        print("ready", flush=True)
        await asyncio.sleep(60)
        yield

    async def close(self):
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass
"""
PHASES = {
    name.lower(): value
    for name, value in dict(globals()).items()
    if isinstance(value, str) and "\nclass Backend" in value
}


def interrupt(script, *argv):
    """Ctrl-C when the script says that it is ready: its exit code and the seconds it took."""
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    source = f"{PREPARED}{script}\nrun(Backend, *{argv!r})\n"
    command = subprocess.Popen(
        [sys.executable, "-c", source],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with command:
        try:
            for line in command.stdout:
                if line.endswith("ready\n"):
                    break
            else:
                pytest.fail(f"never ready: {command.stderr.read()}")
            begun = time.monotonic()
            command.send_signal(signal.SIGINT)
            error = command.communicate(timeout=30)[1]
            return command.returncode, time.monotonic() - begun, error
        finally:
            command.kill()


# What the commands have in common is tried with one of them.
COMMANDS = [("generate", phase) for phase in PHASES]
COMMANDS += [("bench", phase) for phase in ("decode", "server_answers")]


@pytest.mark.parametrize(("command", "phase"), COMMANDS)
def test_the_first_ctrl_c_ends_it(model_id, command, phase):
    prompt = ("ab",) if command == "generate" else ("--prompt", "ab")
    limits = ("--max-tokens", "3", *(("--runs", "1") if command == "bench" else ()))
    code, seconds, error = interrupt(PHASES[phase], command, *prompt, "--raw", *limits)
    assert (code, error) == (130, "")
    assert seconds < SECONDS


def test_it_ends_in_a_chat_template_that_loops(model_id):
    loop = "{% for a in range(9999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    use_template(model_id, loop)
    script = """
from exo_kit.kit.command import loaded_model as session
rendering = session.render

def render(*args, **options):
    print("ready", flush=True)
    return rendering(*args, 5.0, **options)  # its process goes on for as long

session.render = render
Backend = ToyBackend
"""
    code, seconds, error = interrupt(script, "generate", "x")
    assert (code, error) == (130, "")
    assert seconds < SECONDS


@pytest.mark.parametrize("phase", ["made", "loaded"])
def test_random_weights_are_removed(model_id, tmp_path, phase):
    script = f"""
import json, shutil, tempfile
tempfile.tempdir = {str(tmp_path)!r}
maker = sys.modules["random_model"] = ModuleType("random_model")
from exo_kit.kit.command import cli
cli.RANDOM, cli._has = "random_model", lambda name: name == "random_model"

def write_checkpoint(folder):
    (folder / "config.json").write_text(json.dumps(dict(num_hidden_layers=2)))
    shutil.copytree({str(toy_folder(model_id))!r}, folder, dirs_exist_ok=True)
    if {phase == "made"}:
        blocks()

maker.write_checkpoint = write_checkpoint

class Backend(ToyBackend):
    files = ("*",)
    load = blocks
"""
    code, seconds, error = interrupt(script, "generate", "x", "--random-weights")
    assert (code, error) == (130, "")
    assert seconds < SECONDS
    assert list(tmp_path.glob("exo_kit-*")) == []


def test_the_device_is_given_back(model_id, tmp_path):
    script = f"""
from exo_kit.kit.command import interrupt
interrupt._LEAVE_SECONDS = 30.0  # closing may take long on a busy machine

class Backend(ToyBackend):
    def step(self, request_id, x):
        print("ready", flush=True)
        time.sleep(0.01)
        return super().step(request_id, 0 * x)  # an answer without an end

    def close(self):
        open({str(tmp_path / "closed")!r}, "w").close()
"""
    code, _, error = interrupt(script, "generate", "x", "--raw", "--max-tokens", "9999")
    assert (code, error) == (130, "")
    assert (tmp_path / "closed").exists()


def test_no_thread_ends_the_process_while_another_cleans_up(monkeypatch):
    """A slow machine: the time to close is over in the middle of it."""
    cleaning, go_on, done = threading.Event(), threading.Event(), []

    def clean():
        cleaning.set()
        assert go_on.wait(30)
        done.append("cleaned")

    def work():
        with interrupt_module.on_exit(clean):
            pass

    monkeypatch.setattr(interrupt_module.os, "_exit", lambda code: done.append(code))
    threads = [threading.Thread(target=work)]
    threads[0].start()
    assert cleaning.wait(30)
    threads.append(threading.Thread(target=interrupt_module.leave, args=(130,)))
    threads[1].start()
    threads[1].join(0.05)  # it would have left
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert done == ["cleaned", 130]
