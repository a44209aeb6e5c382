"""The rendered plugins as a user has them: their wheels, tests, linters and requirements."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import variants
from exo_engine_check.host import PINS
from packaging.requirements import Requirement

# Of what exo's setup.py pins, what a plugin or its requirements might touch.
TOUCHED = (
    *("aiofiles", "aiohttp", "grpcio", "jinja2", "numpy", "pillow", "prometheus-client"),
    *("protobuf", "psutil", "pydantic", "requests", "rich", "tqdm", "transformers"),
)


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


@dataclass(frozen=True)
class Plugin:
    """A variant's plugin, rendered with every default."""

    variant: str
    folder: Path

    @property
    def name(self) -> str:
        return f"exo-{self.variant}"

    @property
    def package(self) -> str:
        return f"exo_{self.variant}"

    @property
    def engine_name(self) -> str:
        return {"rkllm": "rkllama"}.get(self.variant, self.variant)  # exo has one called rkllm


@pytest.fixture(scope="session", params=variants())
def plugin(request: pytest.FixtureRequest, plugin_of: Callable[[str], Path]) -> Plugin:
    return Plugin(request.param, plugin_of(request.param))


@pytest.fixture(scope="session")
def wheel(plugin: Plugin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(plugin.folder, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with the wheel and its test extra."""
    python = make_venv(tmp_path_factory.mktemp("installed") / "venv")
    run(uv(), "pip", "install", "--quiet", "--python", python, f"{wheel}[test]")
    return python


@pytest.fixture(scope="session")
def check_types(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Function `check_types(folder)`: what mypy --strict prints of a plugin that it accepts."""
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", installed]
    mypy += ["--cache-dir", tmp_path_factory.mktemp("mypy")]  # NumPy's stubs take seconds
    return lambda folder: run(*mypy, cwd=folder)


def only(variant: str) -> pytest.MarkDecorator:
    """Run a test on the plugin of one variant."""
    return pytest.mark.parametrize("plugin", [variant], indirect=True)


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


def test_the_wheel_and_the_sdist_hold_what_they_should(plugin: Plugin, wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {plugin.package, f"{plugin.package}-0.1.0.dist-info"}
    assert f"{plugin.package}/py.typed" in names
    assert f"{plugin.package}-0.1.0.dist-info/licenses/LICENSE" in names
    [sdist] = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "tests/test_backend.py"} <= inside
    assert not any("_variant" in name for name in inside | set(names))


def test_its_tests_pass_with_the_newest_versions(
    installed: Path, plugin: Plugin, tmp_path: Path
) -> None:
    run_its_tests(installed, plugin.folder, tmp_path)


def test_its_tests_pass_with_the_lowest_versions(
    wheel: Path, plugin: Plugin, tmp_path: Path
) -> None:
    python = make_venv(tmp_path / "venv")
    low = ["--resolution", "lowest-direct", "--only-binary", ":all:"]
    # A wheel as the direct requirement would leave its own requirements at their newest.
    needs = tomllib.loads((plugin.folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    every = [*needs["dependencies"], *needs["optional-dependencies"]["test"]]
    run(uv(), "pip", "install", "--quiet", "--python", python, *low, *every)
    run(uv(), "pip", "install", "--quiet", "--python", python, "--no-deps", wheel)
    listed = json.loads(run(uv(), "pip", "list", "--quiet", "--python", python, "--format", "json"))
    versions = {package["name"]: package["version"] for package in listed}
    assert versions["tokenizers"] == "0.20.2"
    assert versions["prometheus-client"] == "0.20.0"
    run_its_tests(python, plugin.folder, tmp_path / "tests")


def test_ruff_and_mypy_are_content(check_types: Callable[[Path], str], plugin: Plugin) -> None:
    run(sys.executable, "-m", "ruff", "check", "--no-cache", cwd=plugin.folder)
    run(sys.executable, "-m", "ruff", "format", "--no-cache", "--check", cwd=plugin.folder)
    assert "no issues found" in check_types(plugin.folder)


@pytest.mark.parametrize("plugin", ["numpy", "openai"], indirect=True)  # one for each contract
def test_mypy_bites_when_a_backend_breaks_the_contract(
    check_types: Callable[[Path], str], plugin: Plugin, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(plugin.folder, broken)
    backend = broken / plugin.package / "backend.py"
    source = backend.read_text(encoding="utf-8")
    assert "    contract = 1\n" in source
    broken_source = source.replace("    contract = 1\n", '    contract = "one"\n')
    backend.write_text(broken_source, encoding="utf-8")
    with pytest.raises(AssertionError, match=r"engine\.py:.*Backend"):
        check_types(broken)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="exo's numpy 2.0.0 is not for Python 3.13")
def test_exos_pins_admit_it_and_stay_as_they_are(
    plugin: Plugin, wheel: Path, tmp_path: Path
) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text("".join(f"{name}=={PINS[name]}\n" for name in TOUCHED))
    before = resolved(pins)
    fixed = tmp_path / "fixed.txt"  # a package may be released between two looks at the index
    fixed.write_text("\n".join(before))
    needs = tomllib.loads((plugin.folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = {line.partition("==")[0] for line in before}
    own = [need for need in needs["dependencies"] if Requirement(need).name not in known]
    brought = tmp_path / "brought.txt"
    brought.write_text("\n".join([pins.read_text(), *own]))
    expected = resolved(brought, "--constraint", fixed)
    assert before <= expected
    fixed.write_text("\n".join(expected))
    both = tmp_path / "both.txt"
    both.write_text(pins.read_text() + f"{plugin.name} @ {wheel.as_uri()}\n")
    after = resolved(both, "--constraint", fixed)
    assert [line.partition(" ")[0] for line in after - expected] == [plugin.name]
    assert expected <= after


def resolved(requirements: Path, *options: str | Path) -> set[str]:
    """name==version of all that these requirements bring, on exo's Python."""
    resolve = [uv(), "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
    resolve += ["--python", sys.executable, "--only-binary", ":all:"]
    return set(run(*resolve, *options, requirements).splitlines())


def test_exo_is_not_among_its_requirements(plugin: Plugin) -> None:
    text = (plugin.folder / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"].values()
    every = [*project["dependencies"], *(need for extra in extras for need in extra)]
    assert not [need for need in every if need.split(">")[0].strip() == "exo"]


def test_importing_the_package_loads_the_standard_library_alone(
    plugin: Plugin, installed: Path
) -> None:
    code = (
        f"import sys; before = {{*sys.modules}}; import {plugin.package}; "
        "tops = {name.partition('.')[0] for name in {*sys.modules} - before}; "
        "print(sorted(tops - sys.stdlib_module_names))"
    )
    assert run(installed, "-c", code).strip() == f"['{plugin.package}']"


def test_models_and_detection_load_nothing_of_exo_or_the_network(
    plugin: Plugin, installed: Path
) -> None:
    code = (
        "import sys; "
        f"from {plugin.package}.models import MODELS; "
        f"from {plugin.package}.detection import detect_device; detect_device(); "
        "print(sorted({'exo', 'aiohttp', 'numpy', 'tokenizers'} & set(sys.modules)))"
    )
    assert run(installed, "-c", code).strip() == "[]"


def test_the_version_is_the_distributions(plugin: Plugin, installed: Path) -> None:
    code = f"import {plugin.package} as package; print(package.__version__)"
    assert run(installed, "-c", code) == "0.1.0\n"


def command(
    plugin: Plugin, installed: Path, *arguments: str, **env: str
) -> subprocess.CompletedProcess[str]:
    """The plugin's own command, with a home in which there is nothing."""
    script = installed.parent / (f"{plugin.name}.exe" if os.name == "nt" else plugin.name)
    base = {k: v for k, v in os.environ.items() if not k.startswith(("RKLLM_", "PYTHON"))}
    return subprocess.run(
        [str(script), *arguments],
        env=base | {"HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"} | env,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )


NOBODY = "http://127.0.0.1:9"


def test_doctor_says_what_is_missing(plugin: Plugin, installed: Path, tmp_path: Path) -> None:
    done = command(plugin, installed, "doctor", RKLLM_SERVER_URL=NOBODY, EXO_HOME=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == ""
    assert 'pip install "exo @ git+https://github.com/jfreed-dev/exo-rkllama@0c831d3' in done.stdout
    assert f"{plugin.engine_name} in 3 groups" in done.stdout


@only("rkllm")
def test_doctor_names_the_server_that_is_not_there(plugin: Plugin, installed: Path) -> None:
    done = command(plugin, installed, "doctor", RKLLM_SERVER_URL=NOBODY)
    [backend] = [line for line in done.stdout.splitlines() if line.startswith("backend: ")]
    assert NOBODY in backend


@pytest.mark.parametrize("depth", ["exo", "exo/inference"])
def test_doctor_knows_the_wrong_exo(
    plugin: Plugin, installed: Path, tmp_path: Path, depth: str
) -> None:
    for folder in (tmp_path / "exo", tmp_path / depth):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
    done = command(plugin, installed, "doctor", RKLLM_SERVER_URL=NOBODY, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "a wrong 'exo'" in done.stdout
    assert "pip uninstall exo" in done.stdout


def check_sentence(plugin: Plugin, done: subprocess.CompletedProcess[str], says: str) -> None:
    """The command failed with one sentence, and this is in it."""
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"{plugin.name}: ")
    assert says in done.stderr


def alone(folder: Path) -> dict[str, str]:
    """Settings with which there is no model, no hub and no server."""
    servers = {"RKLLM_SERVER_URL": NOBODY, "EXO_OPENAI_URL": NOBODY}
    return {"EXO_HOME": str(folder), "HF_HOME": str(folder), **servers}


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("nothing", "There is no model 'nothing' here"),
        ("no/such/folder", "and no such folder"),
    ],
)
def test_no_such_model_is_one_sentence(
    plugin: Plugin, installed: Path, tmp_path: Path, model: str, says: str
) -> None:
    arguments = ["generate", "Hello", "--model", model]
    check_sentence(plugin, command(plugin, installed, *arguments, **alone(tmp_path)), says)


def test_what_a_bench_lacks_first_is_one_sentence(
    plugin: Plugin, installed: Path, tmp_path: Path
) -> None:
    served = plugin.variant in ("openai", "rkllm")
    says = f"no server at {NOBODY}" if served else "Hugging Face hub"
    check_sentence(plugin, command(plugin, installed, "bench", **alone(tmp_path)), says)


def test_a_folder_without_a_model_is_an_error(
    plugin: Plugin, installed: Path, tmp_path: Path
) -> None:
    done = command(plugin, installed, "generate", "Hello", "--model", str(tmp_path))
    check_sentence(plugin, done, "has no config.json with num_hidden_layers")


@only("numpy")
def test_random_weights_generate_without_exo_download_or_device(
    plugin: Plugin, installed: Path, tmp_path: Path
) -> None:
    alone = {"EXO_HOME": str(tmp_path), "TMPDIR": str(tmp_path), "HF_ENDPOINT": NOBODY}
    arguments = ["generate", "Hello", "--random-weights", "--max-tokens", "20"]
    done = command(plugin, installed, *arguments, **alone)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.strip()) >= 10
    assert list(tmp_path.iterdir()) == []
    assert command(plugin, installed, *arguments, **alone).stdout == done.stdout


@only("numpy")
def test_bench_measures_prefill_and_decode(plugin: Plugin, installed: Path) -> None:
    done = command(plugin, installed, "bench", "--random-weights", "--max-tokens", "8")
    assert done.returncode == 0, done.stderr
    rates = re.findall(r"^(prefill|decode) +([0-9.]+) tokens/s", done.stdout, re.MULTILINE)
    assert [name for name, _ in rates] == ["prefill", "decode"]
    assert all(float(rate) > 0 for _, rate in rates)


@only("numpy")
def test_an_author_replaces_operations_and_the_parity_tests_watch(
    plugin: Plugin, installed: Path, check_types: Callable[[Path], str], tmp_path: Path
) -> None:
    """Steps 3 and 4 of the plugin's README."""
    mine = tmp_path / "mine"
    shutil.copytree(plugin.folder, mine)
    command = [installed, "-m", plugin.package, "ops"]
    run(*command, "--init", cwd=mine)
    operations = mine / plugin.package / "operations.py"
    parity = [installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_backend.py"]
    run(*parity, cwd=mine)
    check_types(mine)
    run(sys.executable, "-m", "ruff", "check", "--no-cache", cwd=mine)
    run(sys.executable, "-m", "ruff", "format", "--check", "--no-cache", cwd=mine)

    text = operations.read_text(encoding="utf-8")
    halves = text.replace(
        "= x @ weight.T", '= (x.astype("f2") @ weight.astype("f2").T).astype("f4")'
    )
    assert halves != text
    operations.write_text(halves, encoding="utf-8")
    named = r"layer 0 is the first that differs.*; there, linear is the first operation"
    with pytest.raises(AssertionError, match=named):
        run(*parity, "-x", cwd=mine)
