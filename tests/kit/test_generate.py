"""`generate` answers, and tells its user what is wrong and where."""

import json
import os
import threading
from pathlib import Path

import pytest
from command import BOTH
from plugin import PACKAGE, PROJECT
from toy import ToyAnswers, ToyBackend, write_tokenizer

from exo_kit.kit.command import cli
from exo_kit.kit.command import loaded_model as session
from exo_kit.models import MODELS


@BOTH
def test_an_answer_is_shown(run_cli, use_backend, base):
    use_backend(base)
    assert run_cli("generate", "x", "--raw", "--max-tokens", "2") == (0, "yz\n", "")


@BOTH
def test_a_stop_text_ends_the_answer_and_is_not_in_it(run_cli, use_backend, base):
    use_backend(base)
    assert run_cli("generate", "a", "--raw", "--stop", "zz", "--stop", "ef").out == "bcd\n"


@pytest.mark.parametrize("name", [None, "id", "exo's id"])
def test_a_model_is_named_with_or_without_the_engine(run_cli, use_backend, model_id, name):
    use_backend()
    names = {
        None: (),
        "id": ("--model", MODELS.by_id[model_id].id),
        "exo's id": ("--model", model_id),
    }
    assert run_cli("generate", "x", "--raw", "--max-tokens", "1", *names[name]).out == "y\n"


def test_an_unknown_model_is_told(run_cli, use_backend, model_id):
    use_backend()
    code, _, error = run_cli("generate", "x", "--model", "nobody")
    assert code == 1
    assert "There is no model 'nobody' here, and no such folder" in error
    assert model_id in error


def test_the_chat_template_is_applied(run_cli, use_backend, model_id):
    use_backend()
    write_tokenizer(MODELS.by_id[model_id].repository)
    use_template(model_id, "{{ messages[0].content }}d")
    assert run_cli("generate", "x", "--max-tokens", "2").out == "ef\n"
    assert run_cli("generate", "x", "--max-tokens", "2", "--raw").out == "yz\n"


def toy_folder(model_id):
    """The folder of the toy's tokenizer."""
    return Path(
        os.environ["EXO_HOME"], "downloads", MODELS.by_id[model_id].repository.replace("/", "--")
    )


def use_template(model_id, template):
    """Give the toy's tokenizer a chat template."""
    file = toy_folder(model_id) / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": template}))


def test_a_server_gets_the_conversation_too(run_cli, use_backend, model_id):
    seen = []

    async def answer(self, request):
        seen.extend([request.prompt, request.messages])
        yield self.piece(text="y", finish="stop")

    use_backend(ToyAnswers, answer=answer)
    use_template(model_id, "[{{ messages[0].content }}]")
    run_cli("generate", "x")
    assert seen == ["[x]", [{"role": "user", "content": "x"}]]


def test_a_chat_template_that_loops_is_told(run_cli, use_backend, model_id, monkeypatch):
    monkeypatch.setattr(session, "TEMPLATE_SECONDS", 0.05)
    use_backend()
    inner = "{% for b in range(2000) %}{% endfor %}"
    use_template(model_id, "{% for a in range(2000) %}" + inner + "{% endfor %}")
    code, _, error = run_cli("generate", "x")
    assert code == 1
    assert "chat template takes longer than" in error


def test_a_chat_template_that_refuses_is_told(run_cli, use_backend, model_id):
    use_backend()
    use_template(model_id, "{{ raise_exception('no \x1b[31musers') }}")
    assert "refuses this prompt (no [31musers). --raw sends" in run_cli("generate", "x").err


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("", "--raw"), "The prompt is empty. Ask something."),
        (("x", "--temperature", "-1"), "argument --temperature: give a number from 0 on"),
        (("x", "--temperature", "nan"), "argument --temperature: give a number from 0 on"),
        (("x", "--temperature", "inf"), "argument --temperature: give a number from 0 on"),
        (("\udcff",), "argument prompt: this is no valid text in UTF-8"),
        (("x", "--max-tokens", "0"), "argument --max-tokens: give a whole number above 0"),
    ],
)
def test_what_cannot_be_asked_is_told_before_anything_is_loaded(
    run_cli, use_backend, argv, sentence
):
    use_backend()
    code, out, error = run_cli("generate", *argv)
    assert code
    assert out == ""
    assert error.splitlines()[-1].endswith(f": {sentence}")
    assert ToyBackend.made == []


def test_random_weights_and_a_model_are_refused_together(run_cli, use_backend, monkeypatch):
    monkeypatch.setattr(cli, "_has", lambda module: module == cli.RANDOM)
    use_backend()
    code, _, error = run_cli("generate", "x", "--random-weights", "--model", "y")
    assert code == 2
    assert "--model: not allowed with argument --random-weights" in error


def test_random_weights_are_of_no_use_to_who_reads_no_files(run_cli, use_backend, tmp_path):
    use_backend()
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 2}')
    assert "backend reads no files" in run_cli("generate", "x", "--model", str(tmp_path)).err


def test_a_folder_is_a_model(run_cli, use_backend, model_id):
    use_backend(files=("*.json",))
    folder = write_tokenizer(MODELS.by_id[model_id].repository)
    (folder / "config.json").write_text('{"num_hidden_layers": 2}')
    assert (
        run_cli("generate", "x", "--raw", "--max-tokens", "1", "--model", str(folder)).out == "y\n"
    )
    [backend] = ToyBackend.made
    assert (backend.folder, backend.layers.total) == (folder, 2)


def test_a_folder_of_onnxruntime_genai_is_a_model(run_cli, use_backend, model_id):
    use_backend(files=("*.json",))
    folder = write_tokenizer(MODELS.by_id[model_id].repository)
    about = '{"model": {"decoder": {"num_hidden_layers": 3}}}'
    (folder / "genai_config.json").write_text(about)
    assert (
        run_cli("generate", "x", "--raw", "--max-tokens", "1", "--model", str(folder)).out == "y\n"
    )
    [backend] = ToyBackend.made
    assert backend.layers.total == 3


def test_exos_downloads_come_first_and_the_hub_when_a_file_is_missing(
    run_cli, use_backend, model_id, monkeypatch
):
    calls = []
    folder = write_tokenizer(MODELS.by_id[model_id].repository)

    def load(self, layers, where, tokenizer):
        if not calls:
            raise FileNotFoundError("two.bin")
        ToyBackend.load(self, layers, where, tokenizer)

    def snapshot_download(repository, allow_patterns, ignore_patterns):
        calls.append((repository, allow_patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    use_backend(files=("*.bin",), load=load)
    (folder / "one.bin").touch()
    assert run_cli("generate", "x", "--raw", "--max-tokens", "1").out == "y\n"
    assert calls == [(MODELS.by_id[model_id].repository, ["*.bin", "*.json", "*.jinja"])]


def test_no_hub_is_one_sentence(run_cli, use_backend, model_id, monkeypatch, tmp_path):
    use_backend()
    monkeypatch.setenv("EXO_HOME", str(tmp_path / "empty"))
    code, _, error = run_cli("generate", "x")
    assert code == 1
    assert error.count("\n") == 1
    assert "HF_HUB_OFFLINE keeps us from the Hugging Face hub. Give --model" in error


def test_control_characters_do_not_reach_the_terminal(run_cli, use_backend):
    async def answer(self, request):
        yield self.piece(text="a\x1b]0;title\x07\r\x9b31m\tb\n", finish="stop")

    use_backend(ToyAnswers, answer=answer)
    assert run_cli("generate", "x").out == "a]0;title31m\tb\n"

    async def fail(self, request):
        raise RuntimeError("the server says \x1b[2J\x00no")
        yield

    use_backend(ToyAnswers, answer=fail)
    assert run_cli("generate", "x").err == f"{PROJECT}: the server says [2Jno\n"


def test_a_backend_lives_on_one_thread_and_is_closed(run_cli, use_backend):
    use_backend()
    run_cli("generate", "x", "--raw", "--max-tokens", "3")
    [backend] = ToyBackend.made
    assert len(set(backend.threads)) == 1
    assert backend.threads[0] != threading.get_ident()
    assert (backend.loads, backend.closed) == (1, 1)


@BOTH
def test_an_error_that_nobody_meant_has_its_place(run_cli, use_backend, base):
    use_backend(base, load=lambda self, *_: cli.missing)
    code, _, error = run_cli("generate", "x")
    assert code == 1
    assert f"AttributeError: module '{PACKAGE}.kit.command.cli' has no attribute 'missing'" in error
    assert f"({PACKAGE}/kit/" in error


def test_debug_shows_the_whole_traceback(run_cli, use_backend, monkeypatch):
    use_backend(load=lambda self, *_: cli.missing)
    assert "Traceback" not in run_cli("generate", "x").err
    monkeypatch.setenv("DEBUG", "1")
    assert "Traceback" in run_cli("generate", "x").err


def failing(text):
    """A method that fails so."""

    def method(self, *_):
        raise OSError(text)

    return method


def test_the_first_error_is_told_not_the_one_of_cleaning_up(run_cli, use_backend):
    use_backend(step=failing("no device"), forget=failing("no request"), close=failing("no handle"))
    assert run_cli("generate", "x") == (1, "", f"{PROJECT}: no device\n")


def test_an_error_of_closing_alone_is_told(run_cli, use_backend):
    use_backend(close=failing("no handle"))
    code, out, error = run_cli("generate", "x", "--raw", "--max-tokens", "1")
    assert (code, out) == (1, "y\n")
    assert error == f"{PROJECT}: the backend failed to close: no handle\n"


def test_what_step_may_not_give_is_told(run_cli, use_backend):
    use_backend(step=lambda self, *_: [[1.0]])
    code, _, error = run_cli("generate", "x")
    assert code == 1
    assert "step() in backend.py gave a list. It gives logits" in error


def test_the_version_and_every_default_are_told(run_cli):
    assert run_cli("--version").out.startswith(f"{PROJECT} ")
    for command in ("generate", "bench"):
        options = " ".join(run_cli(command, "--help").out.split("options:")[1].split()).split(" --")
        assert len(options) > 6
        assert [option for option in options[2:] if "(default: " not in option] == []


def test_a_server_is_looked_for_before_a_tokenizer_is_fetched(run_cli, use_backend, monkeypatch):
    async def check(self):
        raise OSError("no server answers at http://localhost:8080")

    def fetch(*_):
        raise AssertionError("a tokenizer was fetched")

    monkeypatch.setattr("exo_kit.kit.command.model_files.fetch", fetch)
    other = list(MODELS.by_id)[1]  # the first one's tokenizer is here
    use_backend(ToyAnswers, check=check)
    code, out, error = run_cli("generate", "x", "--model", other)
    assert (code, out) == (1, "")
    assert "no server answers at http://localhost:8080" in error
    assert run_cli("generate", "x", "--raw").code == 0  # whose server is asked when it is loaded
