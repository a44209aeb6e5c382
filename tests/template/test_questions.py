"""What copier asks: the defaults, the rules for names, the licences."""

import keyword
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from conftest import Render, render_into, variants
from copier.errors import CopierError
from jinja2 import FileSystemLoader
from jinja2.sandbox import SandboxedEnvironment
from jinja2_ansible_filters import AnsibleCoreFiltersExtension
from packaging.requirements import Requirement

LICENSES = {
    "Apache-2.0": ("Apache License", "END OF TERMS AND CONDITIONS"),
    "MIT": ("MIT License", "SOFTWARE."),
    "BSD-3-Clause": ("BSD 3-Clause License", "OF THIS SOFTWARE, EVEN IF ADVISED"),
    "GPL-3.0-or-later": ("GNU GENERAL PUBLIC LICENSE", "END OF TERMS AND CONDITIONS"),
}

# Modules that 3.12 or 3.13 dropped; 3.11 still has them.
REMOVED = {
    *("aifc", "asynchat", "asyncore", "audioop", "cgi", "cgitb", "chunk", "crypt", "distutils"),
    *("imghdr", "imp", "lib2to3", "mailcap", "msilib", "nis", "nntplib", "ossaudiodev", "pipes"),
    *("smtpd", "sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib"),
}


def answers_of(plugin: Path) -> dict[str, str]:
    """The answers that copier stored in the plugin."""
    stored = yaml.safe_load((plugin / ".copier-answers.yml").read_text(encoding="utf-8"))
    return {name: value for name, value in stored.items() if not name.startswith("_")}


def project_of(plugin: Path) -> dict[str, Any]:
    """The [project] table of the plugin."""
    text = (plugin / "pyproject.toml").read_text(encoding="utf-8")
    project: dict[str, Any] = tomllib.loads(text)["project"]
    return project


@pytest.fixture(scope="module")
def macros(template: Path) -> Any:
    """hooks/answers.jinja, as copier's sandbox sees it."""
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(template), extensions=[AnsibleCoreFiltersExtension]
    )
    environment.globals["pathjoin"] = lambda *parts: "/".join(parts)  # as copier has it
    return environment.get_template("hooks/answers.jinja").module


def test_defaults_of_the_rkllm_variant(rkllm_plugin: Path) -> None:
    assert answers_of(rkllm_plugin) == {
        "project_name": "exo-rkllm",
        "variant": "rkllm",
        "engine_name": "rkllama",
        "engine_class": "RkllamaInferenceEngine",
        "description": "rkllama, an inference engine plugin for exo",
        "user_name": "Your Name",
        "user_email": "you@example.com",
        "repository_url": "https://github.com/your-name/exo-rkllm",
        "license": "Apache-2.0",
    }
    assert (rkllm_plugin / "exo_rkllm" / "engine.py").is_file()


def test_every_answer_can_be_given(render: Render) -> None:
    answers = {
        "project_name": "npu-runner",
        "variant": "rkllm",
        "engine_name": "npu",
        "engine_class": "NPUInferenceEngine",
        "description": "Runs on an NPU.",
        "user_name": "Zoë Ångström",
        "user_email": "zoe+exo@mail.example.org",
        "repository_url": "https://git.example.org:8443/~zoe/npu-runner",
        "license": "MIT",
    }
    plugin = render("elsewhere", **answers)
    assert answers_of(plugin) == answers
    entry_points = project_of(plugin)["entry-points"]
    assert entry_points["exo.inference_engines"] == {"npu": "npu_runner.engine:NPUInferenceEngine"}


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("exo-myengine", "exo-myengine"),
        ("Exo_My.Engine 2", "exo-my-engine-2"),
        ("json", "exo-json"),
        ("numpy", "exo-numpy"),
        ("class", "exo-class"),
        ("42", "exo-42"),
        ("exo", "exo-myengine"),
        ("exo-exo-x", "exo-myengine"),
        ("тест", "exo-myengine"),
        ("x" * 80, "exo-myengine"),
    ],
)
def test_project_name_comes_from_the_folder(macros: Any, folder: str, name: str) -> None:
    assert macros.default_project_name(folder) == name


@pytest.mark.parametrize(
    ("project", "variant", "name"),
    [
        ("exo-rkllm", "rkllm", "rkllama"),
        ("exo-mlx", "rkllm", "rkllama"),
        ("exo-rkllm", "numpy", "rkllm_plugin"),
        ("exo-dummy", "numpy", "dummy_plugin"),
        ("exo-my-npu", "rkllm", "my_npu"),
        ("npu-exo-x", "rkllm", "npu_exo_x"),
        ("exo-json", "rkllm", "json_plugin"),
        ("exo-class", "rkllm", "class_plugin"),
        ("exo-42", "rkllm", "exo_42"),
    ],
)
def test_engine_name_comes_from_the_project_name(
    macros: Any, project: str, variant: str, name: str
) -> None:
    assert macros.default_engine_name(project, variant) == name
    assert macros.engine_name_problem(name) == ""


def test_folder_that_is_no_name_still_renders(render: Render) -> None:
    plugin = render("My Ünusual folder!")
    assert answers_of(plugin)["project_name"] == "my-nusual-folder"
    assert answers_of(plugin)["engine_name"] == "my_nusual_folder"


def test_current_folder_gives_the_name(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "exo-here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    render_into(template, Path("."))
    assert answers_of(folder)["project_name"] == "exo-here"


@pytest.mark.parametrize("license_name", LICENSES)
def test_license_file_and_metadata_agree(render: Render, license_name: str) -> None:
    plugin = render(license=license_name, user_name='Ada "Countess" Lovelace')
    text = (plugin / "LICENSE").read_text(encoding="utf-8")
    first, later = LICENSES[license_name]
    assert text.strip().splitlines()[0].strip() == first
    assert later in text
    assert text.endswith("\n")
    assert ('Ada "Countess" Lovelace' in text) == (license_name in {"MIT", "BSD-3-Clause"})
    assert project_of(plugin)["license"] == license_name
    assert license_name in (plugin / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("project_name", "json"),
        ("project_name", "class"),
        ("project_name", "match"),
        ("project_name", "exo"),
        ("project_name", "tests"),
        ("project_name", "exo-exo-x"),
        ("project_name", "exo-exo"),
        ("project_name", "huggingface-hub"),
        ("project_name", "Exo-X"),
        ("project_name", "exo-x\n"),
        ("project_name", "exo-é"),
        ("project_name", "aux"),
        ("engine_name", "mlx"),
        ("engine_name", "tinygrad"),
        ("engine_name", "rkllm"),
        ("engine_name", "dummy"),
        ("engine_name", "lambda"),
        ("engine_name", "my-engine"),
        ("engine_class", "MLXDynamicShardInferenceEngine"),
        ("engine_class", "TinygradDynamicShardInferenceEngine"),
        ("engine_class", "RKLLMInferenceEngine"),
        ("engine_class", "DummyInferenceEngine"),
        ("engine_class", "InferenceEngine"),
        ("engine_class", "Backend"),
        ("engine_class", "ÉInferenceEngine"),
        ("description", "   "),
        ("description", "two\nlines"),
        ("user_name", ""),
        ("user_email", " "),
        ("user_email", "nobody"),
        ("user_email", "a..b@example.com"),
        ("user_email", "you@example.com\n"),
        ("repository_url", "github.com/you/x"),
        ("repository_url", "https://github.com/you/../x"),
        ("repository_url", "javascript:alert(1)"),
        ("repository_url", "https://github.com/you/x/"),
        ("license", "WTFPL"),
        ("variant", "unheard-of"),
    ],
)
def test_refused_answer_writes_nothing(
    render: Render, tmp_path: Path, question: str, answer: str
) -> None:
    with pytest.raises((ValueError, CopierError), match=question):
        render("exo-refused", **{question: answer})
    assert not (tmp_path / "exo-refused").exists()


@pytest.mark.parametrize("question", ["project_name", "engine_name"])
@pytest.mark.parametrize(
    "name",
    [
        "class",
        "None",
        "_",
        "type",
        "json",
        "lib2to3",
        "pty",
        "mlx",
        "rkllm",
        "test",
        "numpy",
        "tests",
    ],
)
def test_what_a_refusal_suggests_is_accepted(macros: Any, question: str, name: str) -> None:
    problem = getattr(macros, f"{question}_problem")
    if refusal := problem(name):
        suggested = re.findall(r"such as ([\w-]+)\.", refusal)
        assert [problem(one) for one in suggested] == [""]


@pytest.mark.parametrize(
    ("option", "advice"),
    [
        ({"data": {"package": "exo_other"}}, "follows from project_name. Leave it out of --data"),
        ({"data": {"numpy": ""}}, "follows from variant. Leave it out of --data"),
        ({"data": {"rkllm": "."}}, "follows from variant. Leave it out of --data"),
        ({"answers_file": "elsewhere.yml"}, "Leave out --answers-file"),
    ],
)
def test_refused_option_writes_nothing(
    template: Path, tmp_path: Path, option: dict[str, Any], advice: str
) -> None:
    with pytest.raises(ValueError, match=advice):
        copier.run_copy(str(template), tmp_path / "exo-x", defaults=True, quiet=True, **option)
    assert not (tmp_path / "exo-x").exists()


def test_unknown_answer_is_refused(render: Render) -> None:
    with pytest.raises(ValueError, match=r"no questions of copier\.yml: .'engine_nam'"):
        render(engine_nam="x")


def test_keywords_are_pythons_own(macros: Any) -> None:
    assert set(macros.KEYWORDS) == set(keyword.kwlist)
    soft = set(macros.SOFT_KEYWORDS)
    assert set(keyword.softkwlist) <= soft
    assert soft - set(keyword.softkwlist) <= {"type"}  # new in 3.12


def test_standard_library_is_pythons_own(macros: Any) -> None:
    listed = set(macros.STANDARD_LIBRARY)
    own = {name for name in sys.stdlib_module_names if not name.startswith("_")}
    assert own <= listed
    assert listed - own <= REMOVED


@pytest.mark.parametrize("variant", variants())
def test_no_project_has_the_name_of_a_module_beside_it(
    macros: Any, plugin_of: Callable[[str], Path], variant: str
) -> None:
    plugin = plugin_of(variant)
    names = {path.stem for path in (plugin / "tests").glob("*.py")}
    assert {"conftest", "driver", "exo_order", "device", "test_backend"} <= names
    project = tomllib.loads((plugin / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for needed in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        names.add(Requirement(needed).name.replace("-", "_"))
    free = [
        name
        for name in (each.replace("_", "-") for each in names)
        if not macros.project_name_problem(name) and not macros.taken_problem(name, variant)
    ]
    assert free == []


def test_a_name_that_a_variants_tests_have_is_refused(render: Render) -> None:
    with pytest.raises(ValueError, match="checkpoints is the name of a module"):
        render("checkpoints", variant="numpy")


def test_message_after_copy_gives_the_next_commands(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    destination = tmp_path / "exo my engine"
    copier.run_copy(str(template), destination, defaults=True)
    message = capfd.readouterr().err
    assert f"cd '{destination}'\n" in message
    assert "pip install -e '.[test]' && pytest\n" in message
    assert 'exo-my-engine generate "Hello" --random-weights\n' in message
    assert "exo-my-engine doctor\n" in message
    assert "exo --inference-engine" not in message  # exo is not on PyPI


def test_the_default_variant_is_numpy(render: Render) -> None:
    plugin = render("exo-myengine")
    answers = answers_of(plugin)
    assert (answers["variant"], answers["engine_name"]) == ("numpy", "myengine")
    assert (plugin / "exo_myengine" / "kit" / "llama" / "llama.py").is_file()
    assert not (plugin / "exo_myengine" / "dialects.py").exists()
