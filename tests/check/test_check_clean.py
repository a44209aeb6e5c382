"""No false alarm: what is right in another way than the template's has no fault."""

import gc
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import guide_plugin as guide
import pytest
from checking import SHORT, faults, plugin
from conftest import variants
from exo_engine_check.inside.leaks import containers
from exo_engine_check.run import Options, check

EXO_PYTHON = os.environ.get("EXO_PYTHON")
EXO_0_3_PYTHON = os.environ.get("EXO_0_3_PYTHON")


@pytest.mark.parametrize("name", variants())
def test_a_rendered_plugin_is_clean_and_says_what_it_can(
    plugin_of: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    table = plugin_of(name) / "CAPABILITIES.md"
    copy = Path(shutil.copy(table, tmp_path))
    report = check(plugin_of(name), Options(report=copy))
    assert report.faults == []
    # A server's answer may be over before it can be cancelled.
    short = {"EX854"} if name in {"openai", "rkllm"} else set()
    assert {result.id for result in report.with_state("not run")} <= short
    assert copy.read_text() == table.read_text(), "python tests/check/capabilities.py"


def test_a_look_for_what_is_held_asks_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Python 3.12.5 the collector would never end from then on."""
    kinds = []
    referents = gc.get_referents

    def get_referents(*objects: object) -> list[object]:
        kinds.extend(map(type, objects))
        return referents(*objects)

    monkeypatch.setattr("gc.get_referents", get_referents)
    assert list(containers())
    assert dict in kinds
    assert ModuleType not in kinds


@pytest.fixture(scope="module")
def exo_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with exo's environment first, and behind it what the tests have, for backends."""
    folder = tmp_path_factory.mktemp("exo") / "venv"
    subprocess.run([str(EXO_PYTHON), "-m", "venv", "--without-pip", folder], check=True)
    where = [str(EXO_PYTHON), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    exos = subprocess.run(where, check=True, capture_output=True, encoding="utf-8").stdout.strip()
    [site] = folder.glob("lib/python*/site-packages")
    (site / "exo.pth").write_text(f"{exos}\n{sysconfig.get_path('purelib')}\n")
    return folder / "bin" / "python"


@pytest.mark.skipif(not EXO_PYTHON, reason="EXO_PYTHON names no Python that has exo")
@pytest.mark.parametrize("name", variants())
def test_and_on_exo_itself(
    plugin_of: Callable[[str], Path], exo_python: Path, tmp_path: Path, name: str
) -> None:
    table = plugin_of(name) / "CAPABILITIES.md"
    copy = Path(shutil.copy(table, tmp_path))
    assert check(plugin_of(name), Options(python=str(exo_python), report=copy)).faults == []
    assert copy.read_text() == table.read_text(), "python tests/check/capabilities.py EXO_PYTHON"


@pytest.mark.skipif(not EXO_0_3_PYTHON, reason="EXO_0_3_PYTHON names no Python that has exo 0.3")
@pytest.mark.parametrize("name", ["numpy", "openai"])  # what its environment has
def test_and_on_exo_0_3_itself(plugin_of: Callable[[str], Path], name: str) -> None:
    report = check(plugin_of(name), Options(python=str(EXO_0_3_PYTHON), select=["EX85"]))
    assert report.faults == []
    assert report.hosts == {"0.3": "exo 0.3 itself"}


def test_an_engine_with_exos_own_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What resolve_tokenizer() gives is exo's business: none of the checks wants another one."""
    monkeypatch.setattr("exo_engine_check.processes.ANSWER_SECONDS", 1.5)
    report = check(plugin(tmp_path, "borrowed"), Options())
    assert report.faults == []
    passed = {result.id for result in report.with_state("passed")}
    assert passed >= {"EX801", "EX804", "EX805"}


@pytest.mark.skipif(not EXO_PYTHON, reason="EXO_PYTHON names no Python that has exo")
def test_and_with_the_one_that_exo_itself_gives(tmp_path: Path) -> None:
    report = check(plugin(tmp_path, "borrowed"), Options(python=str(EXO_PYTHON)))
    assert report.faults == []
    assert report.hosts == {"0.0": "exo 0.0 itself"}


def test_the_guides_plugin_has_one_fault_for_each_of_its_faults(tmp_path: Path) -> None:
    report = check(guide.as_it_is(tmp_path), Options())
    rows = [(r.id, str(f.place), f.message.split(" ")[-1]) for r, f in report.faults]
    assert rows == [
        ("EX201", "pyproject.toml:5", "PyPI"),
        ("EX205", "pyproject.toml:2", "missing"),
        ("EX301", "exo_myengine/engine.py:7", "(node.py:129)"),
        ("EX304", "exo_myengine/engine.py:27", "'temp'"),
        ("EX307", "exo_myengine/engine.py:56", "arguments"),
        ("EX309", "exo_myengine/engine.py:17", "there"),
        ("EX309", "exo_myengine/engine.py:49", "there"),
        ("EX309", "exo_myengine/engine.py:57", "there"),
        ("EX313", "exo_myengine/engine.py:36", "has"),
        ("EX602", "", "(main.py:186)"),
        ("EX203", "pyproject.toml:2", "README"),
        ("EX203", "pyproject.toml:2", "licence"),
        ("EX206", "exo_myengine", "missing"),
        ("EX502", "", "None"),
        ("EX503", "exo_myengine/detection.py:8", "driver"),
    ]


def test_the_guides_plugin_is_clean_when_it_is_corrected(tmp_path: Path) -> None:
    assert faults(guide.corrected(tmp_path)) == {}


def in_src(folder: Path) -> Path:
    copy = plugin(folder)
    (copy / "src").mkdir()
    shutil.move(copy / "exo_steps", copy / "src" / "exo_steps")
    config = copy / "pyproject.toml"
    text = config.read_text(encoding="utf-8").replace('["exo_steps"]', '["src/exo_steps"]')
    config.write_text(text, encoding="utf-8")
    return copy


def test_a_package_below_src(tmp_path: Path) -> None:
    assert faults(in_src(tmp_path), *SHORT) == {}


def test_an_editable_install_is_there_once(tmp_path: Path) -> None:
    """As pip leaves it: a path file, and the metadata of a version of long ago."""
    copy = in_src(tmp_path)
    venv.create(tmp_path / "venv", symlinks=True)
    [site] = (tmp_path / "venv").glob("lib/python*/site-packages")
    own = [path for path in sys.path if path.endswith("site-packages")]
    (site / "exo_steps.pth").write_text("\n".join([str(copy / "src"), *own]))
    info = site / "exo_steps-0.0.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: exo-steps\nVersion: 0.0.9\n")
    (info / "entry_points.txt").write_text(
        "[exo.inference_engines]\nsteps = exo_steps.engine:Old\nother = gone.engine:Gone\n"
        "[exo.models]\nother = gone.models:MODELS\n"
    )
    report = check(copy, Options(select=SHORT, python=str(tmp_path / "venv" / "bin" / "python")))
    assert report.faults == []


REEXPORTED = """
from .engine import *
from .engine import StepsInferenceEngine as StepsInferenceEngine
"""
LAZY = """
def __getattr__(name):
    from . import engine
    return getattr(engine, name)
"""


@pytest.mark.parametrize("text", [REEXPORTED, LAZY], ids=["re-exported", "lazy"])
def test_an_engine_that_is_made_elsewhere(tmp_path: Path, text: str) -> None:
    copy = plugin(tmp_path)
    (copy / "exo_steps" / "public.py").write_text(text, encoding="utf-8")
    config = copy / "pyproject.toml"
    content = config.read_text(encoding="utf-8")
    config.write_text(content.replace("exo_steps.engine:", "exo_steps.public:"), encoding="utf-8")
    assert faults(copy, *SHORT) == {}


def test_an_engine_of_ten_lines_over_another_one(tmp_path: Path) -> None:
    """As the template has it: a class over the engine of a package below."""
    copy = plugin(tmp_path)
    package = copy / "exo_steps"
    (package / "kit").mkdir()
    (package / "kit" / "__init__.py").write_text("")
    text = (package / "engine.py").read_text(encoding="utf-8")
    text = text.replace("class StepsInferenceEngine(", "class Fork(").replace("from .", "from ..")
    (package / "kit" / "fork.py").write_text(text, encoding="utf-8")
    (package / "engine.py").write_text(
        "from .kit.fork import Fork\n\n\nclass StepsInferenceEngine(Fork):\n    pass\n"
    )
    assert faults(copy, *SHORT) == {}


def test_a_device_by_a_path(tmp_path: Path) -> None:
    copy = plugin(tmp_path)
    config = copy / "pyproject.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('"exo_steps.tiny:', '"exo_steps/tiny.py:'))
    assert check(copy, Options(select=["EX801"])).results[0].state == "passed"


def test_repo_review_shows_the_checks_that_read(tmp_path: Path) -> None:
    copy = plugin(tmp_path)
    config = copy / "pyproject.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(f'{text}\n[tool.exo-engine.cannot]\nreuse = "the server keeps its own"\n')
    review = [sys.executable, "-m", "repo_review", "--select", "EX", "--format", "json", copy]
    done = subprocess.run(review, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert '"EX301"' in done.stdout
    assert '"EX801"' not in done.stdout


def test_the_answers_of_copier_agree(tmp_path: Path) -> None:
    copy = plugin(tmp_path)
    answers = copy / ".copier-answers.yml"
    answers.write_text("project_name: exo-steps\nengine_name: steps\n")
    assert faults(copy, static=True) == {}
    answers.write_text("project_name: exo-steps\nengine_name: stairs\n")
    [message] = faults(copy, static=True)["EX207"]
    assert message.startswith(".copier-answers.yml:2: the answer engine_name is stairs")
