"""`doctor` says what is there, what is missing, and what to do."""

import importlib
import sys
from dataclasses import replace
from types import ModuleType

import command
import pytest
from command import BACKEND, BOTH
from plugin import ENGINE_NAME, PACKAGE, PROJECT
from toy import ToyAnswers

from exo_kit import detection
from exo_kit.kit.cards import Model, cards
from exo_kit.models import MODELS


def offer(monkeypatch, *models):
    """The plugin offers these models alone."""
    monkeypatch.setattr(command, "PLUGIN", replace(command.PLUGIN, models=cards(*models)))


@pytest.fixture
def doctor(run_cli):
    """Function `doctor()`: exit code and everything it says, on one line."""

    def run():
        code, out, error = run_cli("doctor")
        assert error == ""
        return code, " ".join(out.split())

    return run


@BOTH
def test_all_is_well(doctor, use_backend, model_id, base):
    use_backend(base)
    code, output = doctor()
    for row in ("backend │ ok │ toy", "exo │ ok", f"{ENGINE_NAME} in 3 groups", "all known to exo"):
        assert row in output
    assert f"here for {model_id}" in output.replace("│ │ │ ", "")
    assert code == 0


def test_what_a_backend_cannot_do_is_said(doctor, use_backend):
    use_backend(unsupported=("tools", "seed", "min_p"))
    output = " ".join(doctor()[1].replace("│", " ").split())
    assert (
        "toy; it refuses requests with tools; of a request it does not heed seed, min_p" in output
    )


def test_an_answer_backend_that_says_nothing_has_no_logprobs(doctor, use_backend):
    use_backend(ToyAnswers)
    output = " ".join(doctor()[1].replace("│", " ").split())
    assert "toy; of a request it does not heed logprobs" in output


def test_a_device_is_asked_on_an_instance_that_is_closed(doctor, use_backend):
    backend = use_backend()
    doctor()
    assert [made.closed for made in backend.made] == [1]
    assert [made.loads for made in backend.made] == [0]


def test_the_first_error_is_told_not_the_one_of_cleaning_up(doctor, use_backend):
    def fail(text):
        def method(self):
            raise OSError(text)

        return method

    use_backend(check=fail("no driver"), close=fail("no handle"))
    code, output = doctor()
    assert code == 1
    assert "backend: no driver" in output
    assert "no handle" not in output


def test_a_missing_sdk_is_told_with_how_to_get_it(doctor, monkeypatch):
    needs = ["numpy>=2", "acme-sdk>=3.1; extra == 'acme'", "other-sdk<4; python_version > '3'"]
    monkeypatch.setattr(f"{PACKAGE}.kit.command.output.requires", lambda _: needs)

    class Missing(ModuleType):
        def __getattr__(self, name):
            if name == "Backend":
                raise ModuleNotFoundError(name=f"{module}.deep")
            raise AttributeError(name)

    monkeypatch.setitem(sys.modules, BACKEND, Missing(BACKEND))
    for module, install in (
        ("acme_sdk", f"pip install '{PROJECT}[acme]'"),
        ("other_sdk", "pip install 'other-sdk<4'"),
        ("third_sdk", "pip install third_sdk, or do as its maker says"),
    ):
        code, output = doctor()
        assert code == 1
        assert f"backend: the Python package '{module}' is not installed; {install}" in output


@pytest.mark.parametrize("layers", [0, "4"])
def test_a_model_that_exo_never_offers_is_told(doctor, use_backend, monkeypatch, layers):
    use_backend()
    wrong = Model("no-such-offer", "No", "organization/name", layers)
    offer(monkeypatch, *MODELS.table, wrong)
    code, output = doctor()
    assert code == 1
    assert "a number of layers and a repository. Look at: no-such-offer." in output


def test_a_model_that_exo_does_not_have_is_told(doctor, use_backend, monkeypatch):
    use_backend()
    extra = Model("not-in-exo", "Not", "organization/name", 4)
    offer(monkeypatch, *MODELS.table, extra)
    code, output = doctor()
    assert code == 1
    assert "exo has no such model for this engine: not-in-exo-" in output


def test_no_models_are_told(doctor, use_backend, monkeypatch):
    use_backend()
    offer(monkeypatch)
    assert "models: Name at least one model in models.py." in doctor()[1]


def test_a_broken_tokenizer_is_told(doctor, use_backend, tmp_path):
    use_backend()
    assert "tokenizer │ ok" in doctor()[1]
    [file] = tmp_path.glob("downloads/*/tokenizer.json")
    file.write_text("{}")
    code, output = doctor()
    assert code == 1
    assert f"{file} is no tokenizer that can be read" in output


def test_a_plugin_that_is_not_installed_is_told(doctor, use_backend, monkeypatch):
    use_backend()
    monkeypatch.setattr(f"{PACKAGE}.kit.command.doctor.entry_points", lambda group: [])
    code, output = doctor()
    assert code == 1
    assert "entry points: Install this plugin where exo is installed" in output


def test_a_name_that_exo_has_itself_is_told(doctor, use_backend, monkeypatch):
    use_backend()
    module = "exo.inference.plugin_discovery.discover_inference_engines"
    monkeypatch.setattr(module, lambda: {ENGINE_NAME: ("exo.inference.dummy", "Dummy")})
    assert f"hidden by exo: {ENGINE_NAME}" in doctor()[1]


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (ModuleNotFoundError(name="exo"), "exo: https://github.com/exo-explore/exo says"),
        (ModuleNotFoundError(name="exo.inference"), "exo: This 'exo' has no plugin support"),
        (ModuleNotFoundError(name="grpc"), "exo: Install what exo needs, or exo again with: pip"),
        (RuntimeError("exo is broken"), "exo: exo is broken. Install it with: pip"),
    ],
)
def test_no_exo_and_a_wrong_exo_are_told(doctor, use_backend, monkeypatch, error, advice):
    use_backend()
    real = importlib.import_module

    def import_module(name):
        if name.startswith("exo."):
            raise error
        return real(name)

    monkeypatch.setattr(f"{PACKAGE}.kit.command.doctor.import_module", import_module)
    code, output = doctor()
    assert code == 1
    assert advice in output


def test_the_doctor_never_falls_over(doctor, use_backend, monkeypatch):
    use_backend(check=lambda self: None)
    monkeypatch.setattr(detection, "detect_device", lambda: True)
    output = doctor()[1]
    assert "device: detect_device() gives True; it gives a name or None" in output
    assert "backend: check() in backend.py gives None; it gives one line of text" in output


def test_what_a_device_says_does_nothing_to_the_terminal(doctor, use_backend, monkeypatch):
    use_backend(check=lambda self: "toy\x1b[2J [bold]\x07")
    monkeypatch.setattr(detection, "detect_device", lambda: "\x9b31mchip")
    output = doctor()[1]
    assert "│ toy[2J [bold] │" in " ".join(output.split())
    assert "│ 31mchip │" in output
