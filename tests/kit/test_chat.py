"""`chat`: a conversation, whose answers a Ctrl-C ends one by one."""

import io
import json
import os
import pty
import signal
import subprocess
import sys

import pytest
from command import PYTHONPATH
from running import value
from test_generate import use_template
from test_interrupt import PREPARED
from toy import ToyAnswers, ToyBackend, ToyMany

ALL = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture
def chat(run_cli, monkeypatch, model_id):
    """Function `chat(lines, *argv)` that runs the command with these lines on its stdin."""
    use_template(model_id, ALL)

    def run(lines, *argv):
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        return run_cli("chat", *argv)

    return run


@pytest.fixture
def recorded(use_backend):
    """The requests that a scripted backend got; it answers each with "yes"."""
    requests = []

    async def answer(self, request):
        requests.append(request)
        yield self.piece(text="hm", thinking=True)
        yield self.piece(text="yes", finish="stop")

    use_backend(ToyAnswers, answer=answer)
    return requests


def test_what_was_said_is_remembered(chat, recorded):
    assert chat("a\n\nb", "--system", "s").out == "<think>\nhm\n</think>\n\nyes\n" * 2
    conversation = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]
    assert recorded[0].messages == conversation
    conversation += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": "b"}]
    assert recorded[1].messages == conversation
    assert recorded[0].id != recorded[1].id


def test_the_next_turn_reads_what_is_new_alone(chat, use_backend):
    use_backend(ToyMany)
    before = value("reused_tokens_total")
    line = "what is the capital of france and of spain"
    assert chat(f"{line}\nxy\n", "--max-tokens", "3").err == ""
    assert value("reused_tokens_total") - before == 32


def test_what_is_refused_is_as_if_it_was_never_said(chat, recorded, model_id):
    use_template(
        model_id, "{% if 'no' in messages[-1].content %}{{ raise_exception('x') }}{% endif %}a"
    )
    code, out, error = chat("no\nb\n")
    assert (code, out.count("yes")) == (0, 1)
    assert "The model's chat template refuses this prompt (x)" in error
    assert [message["content"] for message in recorded[0].messages] == ["b"]


def test_without_a_template_lines_are_sent_as_they_are(run_cli, monkeypatch, use_backend):
    use_backend()
    monkeypatch.setattr(sys, "stdin", io.StringIO("x\na\n"))
    assert run_cli("chat", "--max-tokens", "2").out == "yz\nbc\n"


def test_calls_are_shown_and_remembered(chat, use_backend, tmp_path):
    requests = []

    async def answer(self, request):
        requests.append(request)
        call = '<tool_call>{"name": "f", "arguments": {"x":  1}}</tool_call>'
        yield self.piece(text=f"I look.{call}", finish="stop")

    use_backend(ToyAnswers, answer=answer)
    file = tmp_path / "tools.json"
    file.write_text('[{"name": "f"}]')
    assert chat("a\nb\n", "--tools", str(file)).out == 'I look.\nf {"x": 1}\n' * 2
    [call] = requests[1].messages[1]["tool_calls"]
    assert call["function"] == {"name": "f", "arguments": '{"x":  1}'}
    assert requests[0].tools == [{"type": "function", "function": {"name": "f"}}]


ENDLESS = """
from exo_kit.kit.command import chat
reading = chat._line

def line():
    print("next", file=sys.stderr, flush=True)
    return reading()

chat._line = line

class Backend(ToyAnswers):
    async def answer(self, request):
        yield self.piece(text="ready")
        if request.prompt.endswith("x"):
            await asyncio.sleep(60)
        yield self.piece(text=f"{request.messages}", finish="stop")
"""


@pytest.fixture
def running(model_id):
    """A chat in a process of its own; answers to "x" have no end, a line is asked for on stderr."""
    use_template(model_id, ALL)
    source = f"{PREPARED}{ENDLESS}\nrun(Backend, 'chat')\n"
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    command = subprocess.Popen([sys.executable, "-c", source], env=environment, text=True, **pipes)
    with command:
        yield command
        command.kill()


def ask(command, line):
    command.stdin.write(f"{line}\n")
    command.stdin.flush()
    assert command.stdout.read(5) == "ready"


def test_ctrl_c_ends_an_answer_and_not_the_chat(running):
    ask(running, "x")
    running.send_signal(signal.SIGINT)
    assert running.stdout.read(1) == "\n"
    ask(running, "y")
    running.stdin.close()
    # communicate() would lose what read() has taken from the pipe beyond its five characters.
    out, error = running.stdout.read(), running.stderr.read()
    conversation = [("user", "x"), ("assistant", "ready"), ("user", "y")]
    assert out == f"{[{'role': role, 'content': text} for role, text in conversation]}\n"
    assert (running.wait(30), error) == (0, "next\n" * 3)


def test_ctrl_c_between_two_answers_ends_the_chat(running):
    ask(running, "y")
    assert [running.stderr.readline() for _ in range(2)] == ["next\n"] * 2
    running.send_signal(signal.SIGINT)
    assert running.wait(30) == 130
    assert running.stderr.read() == ""


SLOW = """
from exo_kit.kit.command import progress
progress._QUIET_SECONDS = 0.05
drawn, tick = threading.Event(), progress.Progress._tick

def draw(self):
    tick(self)
    self._live.refresh()
    drawn.set()

progress.Progress._tick = draw

class Backend(ToyBackend):
    def load(self, *args):
        assert drawn.wait(30)
        super().load(*args)
"""


def test_on_a_terminal_there_are_a_prompt_and_a_line_of_counts(model_id):
    use_template(model_id, ALL)
    ours, theirs = pty.openpty()
    source = f"{PREPARED}{SLOW}\nrun(Backend, 'chat', '--max-tokens', '3')\n"
    environment = os.environ | {"PYTHONPATH": PYTHONPATH, "TERM": "xterm"}
    ends = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    command = subprocess.Popen([sys.executable, "-c", source], env=environment, **ends)
    os.close(theirs)
    seen = b""
    try:
        for end, line in ((b"> ", b"ab\n"), (b"--max-tokens", b"\x04")):
            while end not in seen:
                seen += os.read(ours, 4096)
            if line == b"\x04":
                while not seen.endswith(b"> "):
                    seen += os.read(ours, 4096)
            os.write(ours, line)
        assert command.wait(30) == 0
    finally:
        command.kill()
        os.close(ours)
    before, _, behind = seen.partition(b"> ")
    assert b"loading" in before
    assert b"loading" not in behind
    assert b"cde" in behind
    assert b"3 tokens, " in seen


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_the_options_reach_the_request(run_cli, monkeypatch, recorded, model_id, command):
    use_template(model_id, ALL)
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\n"))
    options = "--seed 5 --top-k 3 --top-p 0.5 --min-p 0.1 --repetition-penalty 1.2 --no-thinking"
    prompt = ("a",) if command == "generate" else ()
    run_cli(command, *prompt, *options.split(), "--temperature", "0.7")
    [request] = recorded
    sampling = request.sampling
    assert (sampling.seed, sampling.top_k, sampling.top_p) == (5, 3, 0.5)
    assert (sampling.min_p, sampling.repetition_penalty, sampling.temperature) == (0.1, 1.2, 0.7)
    assert request.thinking is False


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--top-p", "2"), "argument --top-p: give a number from 0 to 1"),
        (("--seed", "x"), "argument --seed: give a whole number"),
        (("--repetition-penalty", "0"), "argument --repetition-penalty: give a number above 0"),
        (("--tools", "/nowhere"), "argument --tools: /nowhere can't be read (No such file"),
        (("--tools", "FILE"), "has no list of tools"),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_is_loaded(
    run_cli, use_backend, tmp_path, options, sentence
):
    use_backend()
    file = tmp_path / "tools.json"
    file.write_text(json.dumps([{"name": 5}]))
    code, _, error = run_cli("generate", "a", *(str(file) if o == "FILE" else o for o in options))
    assert code == 2
    assert sentence in error
    assert ToyBackend.made == []


def test_a_template_without_tools_refuses_them(run_cli, use_backend, model_id, tmp_path):
    use_backend()
    use_template(model_id, ALL)
    file = tmp_path / "tools.json"
    file.write_text('{"tools": [{"type": "function", "function": {"name": "f"}}]}')
    assert "it takes no tools" in run_cli("generate", "a", "--tools", str(file)).err
    assert "which --raw" in run_cli("generate", "a", "--raw", "--tools", str(file)).err
