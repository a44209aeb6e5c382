"""The rendered RKLLM plugin as a user has it: its wheel, tests, linters and requirements."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

# What exo's setup.py pins, of what a plugin or its requirements might touch.
EXO_PINS = {
    "aiofiles": "24.1.0",
    "aiohttp": "3.10.11",
    "grpcio": "1.68.0",
    "jinja2": "3.1.4",
    "numpy": "2.0.0",
    "pillow": "10.4.0",
    "prometheus-client": "0.20.0",
    "protobuf": "5.28.1",
    "psutil": "6.0.0",
    "pydantic": "2.9.2",
    "requests": "2.32.3",
    "rich": "13.7.1",
    "tqdm": "4.66.4",
    "transformers": "4.46.3",
}


def uv() -> str:
    """The uv of this environment, else the one on PATH."""
    found = shutil.which(
        "uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    assert found, "uv is not here; install this repository's test extra"
    return found


def run(*command: str | Path, cwd: Path | None = None, seconds: float = 300) -> str:
    """The output of a command that has to succeed, without the caller's Python settings."""
    env = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "UV_"))
    }
    env = {k: v for k, v in env.items() if not k.startswith(("RKLLM_", "PYTEST_", "COV_"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env | {"NO_COLOR": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def python_of(venv: Path) -> Path:
    """The interpreter of an environment."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make_venv(path: Path) -> Path:
    """A new, empty environment on the Python that runs these tests; its interpreter."""
    run(uv(), "venv", "--quiet", "--python", sys.executable, path)
    return python_of(path)


def build_wheel(plugin: Path, out: Path) -> Path:
    """The plugin's wheel, built from its sdist as for PyPI."""
    run(uv(), "build", "--quiet", "--python", sys.executable, "--out-dir", out, cwd=plugin)
    [wheel] = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def wheel(rkllm_plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(rkllm_plugin, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with the wheel and its test extra."""
    python = make_venv(tmp_path_factory.mktemp("installed") / "venv")
    run(uv(), "pip", "install", "--quiet", "--python", python, f"{wheel}[test]")
    return python


def copy_tests(plugin: Path, folder: Path) -> Path:
    """The plugin without its package: what is imported then is what is installed."""
    shutil.copytree(plugin / "tests", folder / "tests")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(plugin / name, folder / name)
    return folder


def run_its_tests(python: Path, plugin: Path, folder: Path) -> str:
    """The plugin's own tests on an installed wheel."""
    output = run(
        python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=copy_tests(plugin, folder)
    )
    assert " passed" in output
    return output


def test_the_wheel_and_the_sdist_hold_what_they_should(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"exo_rkllm", "exo_rkllm-0.1.0.dist-info"}
    assert "exo_rkllm/py.typed" in names
    assert "exo_rkllm-0.1.0.dist-info/licenses/LICENSE" in names
    [sdist] = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "tests/server.py"} <= inside
    assert not any("_variant" in name for name in inside | set(names))


def test_its_tests_pass_with_the_newest_versions(
    installed: Path, rkllm_plugin: Path, tmp_path: Path
) -> None:
    run_its_tests(installed, rkllm_plugin, tmp_path)


def test_its_tests_pass_with_the_lowest_versions(
    wheel: Path, rkllm_plugin: Path, tmp_path: Path
) -> None:
    python = make_venv(tmp_path / "venv")
    low = ["--resolution", "lowest-direct", "--only-binary", ":all:"]
    # A wheel as the direct requirement would leave its own requirements at their newest.
    needs = tomllib.loads((rkllm_plugin / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    every = [*needs["dependencies"], *needs["optional-dependencies"]["test"]]
    run(uv(), "pip", "install", "--quiet", "--python", python, *low, *every)
    run(uv(), "pip", "install", "--quiet", "--python", python, "--no-deps", wheel)
    listed = json.loads(run(uv(), "pip", "list", "--quiet", "--python", python, "--format", "json"))
    versions = {package["name"]: package["version"] for package in listed}
    assert versions["tokenizers"] == "0.20.2"
    assert versions["aiohttp"] == "3.10.11"
    run_its_tests(python, rkllm_plugin, tmp_path / "tests")


def test_ruff_and_mypy_are_content(installed: Path, rkllm_plugin: Path) -> None:
    run(sys.executable, "-m", "ruff", "check", "--no-cache", cwd=rkllm_plugin)
    run(sys.executable, "-m", "ruff", "format", "--no-cache", "--check", cwd=rkllm_plugin)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull]
    output = run(*mypy, "--python-executable", installed, cwd=rkllm_plugin)
    assert "no issues found" in output


def test_mypy_bites_when_a_backend_breaks_the_contract(
    installed: Path, rkllm_plugin: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(rkllm_plugin, broken)
    backend = broken / "exo_rkllm" / "backend.py"
    source = backend.read_text(encoding="utf-8")
    assert "def forget(" in source
    backend.write_text(source.replace("def forget(", "def forgot("), encoding="utf-8")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull]
    with pytest.raises(AssertionError, match="forget"):
        run(*mypy, "--python-executable", installed, cwd=broken)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="exo's numpy 2.0.0 is not for Python 3.13")
def test_exos_pins_admit_it_and_stay_as_they_are(wheel: Path, tmp_path: Path) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text("".join(f"{name}=={version}\n" for name, version in EXO_PINS.items()))
    resolve = [uv(), "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
    resolve += ["--python", sys.executable, "--only-binary", ":all:"]
    before = set(run(*resolve, pins).splitlines())
    both = tmp_path / "both.txt"
    both.write_text(pins.read_text() + f"exo-rkllm @ {wheel.as_uri()}\n")
    after = set(run(*resolve, both).splitlines())
    assert before <= after
    assert [line.partition(" ")[0] for line in after - before] == ["exo-rkllm"]


def test_exo_is_not_among_its_requirements(rkllm_plugin: Path) -> None:
    text = (rkllm_plugin / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"].values()
    every = [*project["dependencies"], *(need for extra in extras for need in extra)]
    assert not [need for need in every if need.split(">")[0].strip() == "exo"]


IMPORT = """
import sys, time
import importlib.metadata
start = time.perf_counter()
import exo_rkllm
seconds = time.perf_counter() - start
heavy = sorted({"tokenizers", "aiohttp", "exo", "numpy", "huggingface_hub"} & set(sys.modules))
print(seconds, ",".join(heavy))
"""


def test_importing_the_package_is_quick_and_loads_nothing_heavy(installed: Path) -> None:
    lines = [run(installed, "-c", IMPORT).strip("\n").split(" ") for _ in range(3)]
    assert [heavy for _, heavy in lines] == [""] * 3
    assert min(float(seconds) for seconds, _ in lines) <= 0.25


def test_models_and_detection_load_nothing_of_exo_or_the_network(installed: Path) -> None:
    code = (
        "import sys; from exo_rkllm import MODELS, PRETTY_NAMES, detect_device; detect_device();"
        "print(sorted({'exo', 'aiohttp', 'tokenizers'} & set(sys.modules)))"
    )
    assert run(installed, "-c", code).strip() == "[]"


def test_the_version_is_the_distributions(installed: Path) -> None:
    assert run(installed, "-c", "import exo_rkllm; print(exo_rkllm.__version__)") == "0.1.0\n"


def command(installed: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The plugin's own command, with a home in which there is nothing."""
    script = installed.parent / ("exo-rkllm.exe" if os.name == "nt" else "exo-rkllm")
    base = {k: v for k, v in os.environ.items() if not k.startswith(("RKLLM_", "PYTHON"))}
    return subprocess.run(
        [str(script), *arguments],
        env=base | {"HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"} | env,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )


NOBODY = "http://127.0.0.1:9"


def test_doctor_says_what_is_missing(installed: Path, tmp_path: Path) -> None:
    done = command(installed, "doctor", RKLLM_SERVER_URL=NOBODY, EXO_HOME=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == ""
    assert 'pip install "exo @ git+https://github.com/jfreed-dev/exo-rkllama"' in done.stdout
    [backend] = [line for line in done.stdout.splitlines() if line.startswith("backend: ")]
    assert NOBODY in backend
    assert "rkllama in 3 groups" in done.stdout


@pytest.mark.parametrize("depth", ["exo", "exo/inference"])
def test_doctor_knows_the_wrong_exo(installed: Path, tmp_path: Path, depth: str) -> None:
    for folder in (tmp_path / "exo", tmp_path / depth):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
    done = command(installed, "doctor", RKLLM_SERVER_URL=NOBODY, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "a wrong 'exo'" in done.stdout
    assert "pip uninstall exo" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["generate", "Hello", "--model", "nothing"], "There is no model 'nothing' here"),
        (["generate", "Hello", "--model", "no/such/folder"], "and no such folder"),
        (["generate", "Hello", "--model", "."], "reads no files"),
        (["bench"], "tokenizer"),
    ],
)
def test_an_error_is_one_sentence(
    installed: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    done = command(installed, *arguments, RKLLM_SERVER_URL=NOBODY, EXO_HOME=str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("exo-rkllm: ")
    assert says in done.stderr
