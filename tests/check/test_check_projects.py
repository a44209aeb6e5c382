"""Whole projects: other build tools, other layouts, and what --fix may not touch."""

import os
import tomllib
from pathlib import Path

import guide_plugin as guide
import pytest
from checking import ids, run
from exo_engine_check.reading import read_plugin
from exo_engine_check.run import check

GOOD = guide.GOOD_CONFIG
HEAD, _, GROUPS = GOOD.partition("\n[project.entry")
GROUPS = f"[project.entry{GROUPS}"
POETRY = """\
[build-system]
requires = ["poetry-core"]
build-backend = "poetry.core.masonry.api"

[tool.poetry]
name = "exo-myengine"
version = "0.1.0"
readme = "README.md"
license = "MIT"

[tool.poetry.dependencies]
python = "^3.11"
numpy = ">=1.26"

""" + GROUPS.replace("project.entry-points", "tool.poetry.plugins")
BUILD = '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
SETUP_CFG = """\
[metadata]
name = exo-myengine
description = It has exo.models and exo.model of its own
version = 0.1.0
license = MIT
long_description = file: README.md

[options]
packages = find:
python_requires = >=3.11
install_requires =
    numpy>=1.26

[options.entry_points]
exo.inference_engines =
    myengine = exo_myengine.engine:MyInferenceEngine
exo.models =
    myengine = exo_myengine.models:MY_MODELS
exo.device_detectors =
    mydevice = exo_myengine.detection:detect_my_device
"""
SETUP_PY = "from setuptools import setup\n\nsetup(entry_points={'exo.models': ['a = b:C']})\n"
DYNAMIC = HEAD.replace("[project]\n", '[project]\ndynamic = ["entry-points"]\n')


def project(folder: Path, config: str, **files: str) -> Path:
    """The guide's mended plugin with another pyproject.toml; `setup_cfg` is setup.cfg."""
    guide.mended(folder, config=config)
    return guide.write(folder, {name.replace("_", "."): text for name, text in files.items()})


def swapped(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


def fixed(plugin: Path) -> int:
    """Exit code of --fix, whose metadata is TOML still."""
    code = run(plugin, "--fix")[0]
    tomllib.loads((plugin / "pyproject.toml").read_text(encoding="utf-8"))
    return code


def test_projects_of_poetry_and_setuptools_are_clean(tmp_path: Path) -> None:
    assert ids(project(tmp_path / "poetry", POETRY)) == []
    assert ids(project(tmp_path / "cfg", BUILD, setup_cfg=SETUP_CFG)) == []


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ('">=1.26"', '"^1.26"', ["EX202"]),
        ('">=1.26"', '"^2"', []),
        ('">=1.26"', '"~2.0"', []),
        ('">=1.26"', '"~1"', ["EX202"]),
        ('">=1.26"', '"1.*"', ["EX202"]),
        ('">=1.26"', '"*"', []),
        ('">=1.26"', '"1.26.4"', ["EX202"]),
        ('">=1.26"', '">= 1.26, < 2"', ["EX202"]),
        ('">=1.26"', '"^1.26 || ^2.0"', []),
        ('">=1.26"', '{version = "<2", extras = ["x"]}', ["EX202"]),
        ('">=1.26"', '{version = "<2", python = "<3.11"}', []),
        ('">=1.26"', '[{version = "<2", python = "<3.11"}, {version = ">=2"}]', []),
        ('"^3.11"', '"~3.13"', ["EX205"]),
        ('"^3.11"', '"^3.11 || ^4.0"', []),
        ('"^3.11"', '"three"', ["EX205"]),
        ('python = "^3.11"\n', "", ["EX205"]),
        ('"README.md"', '["README.md", "MORE.md"]', ["EX203"]),
        ('"README.md"', '["README.md"]', []),
        ('license = "MIT"\n', "", ["EX204"]),
        ("numpy =", "exo =", ["EX201"]),
    ],
)
def test_what_poetry_says(tmp_path: Path, old: str, new: str, found: list[str]) -> None:
    assert ids(project(tmp_path, swapped(POETRY, old, new))) == found


@pytest.mark.parametrize(
    ("constraint", "specifier"),
    [
        ("^1.2.3", ">=1.2.3,<2"),
        ("^0.2.3", ">=0.2.3,<0.3"),
        ("^0.0.3", ">=0.0.3,<0.0.4"),
        ("^0.0", ">=0.0,<0.1"),
        ("~1.2.3", ">=1.2.3,<1.3"),
        ("~=1.2", "~=1.2"),
        ("!=1.2.*,>1", "!=1.2.*,>1"),
    ],
)
def test_poetrys_constraints(tmp_path: Path, constraint: str, specifier: str) -> None:
    config = swapped(POETRY, "numpy = ", f'some = "{constraint}"\nnumpy = ')
    metadata = read_plugin(project(tmp_path, config)).metadata
    assert metadata.requirements[0][0] == f"some{specifier}"


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("    numpy>=1.26", "    numpy<2\n    exo", ["EX201", "EX202"]),
        ("\n    numpy>=1.26", " numpy>=1.26; exo>=0.0.1", ["EX201"]),
        ("numpy>=1.26\n", "numpy\n\n[options.extras_require]\ntest = exo\n", ["EX201"]),
        ("long_description = file: README.md\n", "", ["EX203"]),
        ("file: README.md", "file: README.md, MORE.md", ["EX203"]),
        ("license = MIT\n", "", ["EX204"]),
        ("license = MIT", "license = MIT\nlicense_files = COPYING", ["EX204"]),
        ("license = MIT", "classifiers =\n    License :: OSI Approved :: MIT License", []),
        ("license = MIT", "classifiers = file: classifiers.txt", []),
        ("long_description", "long-description", []),
        ("python_requires = >=3.11\n", "", ["EX205"]),
        ("python_requires = >=3.11", "python_requires: >=3.13", ["EX205"]),
        ("models:MY_MODELS", "models:MODELS", ["EX107"]),
        ("exo.models =", "exo.model =", ["EX104"]),
    ],
)
def test_what_setup_cfg_says(tmp_path: Path, old: str, new: str, found: list[str]) -> None:
    plugin = project(tmp_path, BUILD, setup_cfg=swapped(SETUP_CFG, old, new))
    report = check(plugin, [], [])
    assert [fault.id for fault in report.faults] == found
    assert {fault.finding.place.path for fault in report.faults} <= {"setup.cfg"}


def test_requirements_of_another_file_are_not_known(tmp_path: Path) -> None:
    cfg = swapped(SETUP_CFG, "\n    numpy>=1.26", " file: requirements.txt")
    metadata = read_plugin(project(tmp_path, BUILD, setup_cfg=cfg)).metadata
    assert metadata.requirements == []
    assert "dependencies" in metadata.dynamic


def test_poetry_may_say_what_is_dynamic(tmp_path: Path) -> None:
    head = swapped(HEAD, 'dependencies = ["numpy"]', 'dynamic = ["dependencies"]')
    tables = "[tool.poetry.dependencies]\nexo = '*'\n\n"
    assert ids(project(tmp_path, f"{head}\n{tables}{GROUPS}")) == ["EX201"]


def test_setup_py_may_say_the_rest(tmp_path: Path) -> None:
    config = swapped(SETUP_CFG, "license = MIT\n", "")
    plugin = project(tmp_path, BUILD, setup_cfg=config, setup_py="setup()")
    assert ids(plugin) == ["EX204"]
    (plugin / "setup.py").write_text("setup(license='MIT')", encoding="utf-8")
    assert ids(plugin) == []


@pytest.mark.parametrize(
    ("config", "files"),
    [
        (BUILD, {"setup_py": SETUP_PY}),
        (BUILD, {"setup_py": SETUP_PY, "setup_cfg": SETUP_CFG}),
        (BUILD, {"setup_cfg": swapped(SETUP_CFG, "[options]", "[options]\nentry_points = file: e")
                 .partition("[options.entry_points]")[0]}),
        (BUILD + DYNAMIC, {"setup_py": SETUP_PY}),
        (BUILD + DYNAMIC, {}),
        (DYNAMIC + swapped(BUILD, "setuptools.build_meta", "hatchling.build"), {}),
        ('[tool.flit.metadata]\nmodule = "a"\n[build-system]\nrequires = ["flit_core"]', {}),
    ],
)  # fmt: skip
def test_what_only_the_build_knows_is_refused(
    tmp_path: Path, config: str, files: dict[str, str]
) -> None:
    plugin = project(tmp_path, config, **files)
    for option in ("--select=EX", "--fix"):
        code, out, err = run(plugin, option)
        assert (code, out) == (2, "")
        assert err.endswith("build the wheel and check it: exo-engine check dist/*.whl\n")
    assert (plugin / "pyproject.toml").read_text(encoding="utf-8") == config


LAYOUTS = {
    "poetry": swapped(POETRY, "license =", 'packages = [{include = "exo_myengine", from = "code"}]'
                      "\nlicense ="),
    "pdm": GOOD + '\n[tool.pdm.build]\npackage-dir = "code"\n',
    "setuptools": GOOD + '\n[tool.setuptools.package-dir]\n"" = "code"\n',
}  # fmt: skip


@pytest.mark.parametrize("config", LAYOUTS.values(), ids=list(LAYOUTS))
def test_a_package_in_a_folder_of_any_name(tmp_path: Path, config: str) -> None:
    plugin = project(tmp_path, config)
    (plugin / "code").mkdir()
    (plugin / "exo_myengine").rename(plugin / "code" / "exo_myengine")
    assert ids(plugin) == []
    (plugin / "code" / "exo_myengine" / "py.typed").unlink()
    assert ids(plugin) == ["EX206"]
    (plugin / "code").rename(plugin / "tests")
    assert set(ids(plugin)) == {"EX106"}


WHEEL = "[tool.hatch.build.targets.wheel"
MAPPED = {
    "setuptools": f'{GOOD}\n[tool.setuptools.package-dir]\nexo_myengine = "code"\n',
    "sources": f'{GOOD}\n{WHEEL}]\npackages = ["code"]\n{WHEEL}.sources]\ncode = "exo_myengine"\n',
    "hatch": f'{GOOD}\n{WHEEL}.force-include]\ncode = "exo_myengine"\n',
    "poetry": swapped(
        POETRY, "license =", 'packages = [{include = "code", to = "exo_myengine"}]\nlicense ='
    ),
    "setup.cfg": BUILD,
}


@pytest.mark.parametrize("config", MAPPED.values(), ids=list(MAPPED))
def test_a_package_in_a_folder_of_another_name(tmp_path: Path, config: str) -> None:
    plugin = project(tmp_path, config)
    if config == BUILD:
        cfg = swapped(SETUP_CFG, "find:\n", "find:\npackage_dir =\n    exo_myengine = code\n")
        guide.write(plugin, {"setup.cfg": cfg})
    (plugin / "exo_myengine").rename(plugin / "code")
    assert ids(plugin) == []
    assert len(read_plugin(plugin).unseen) == 3


def test_a_wheel_of_moved_folders_is_not_judged(tmp_path: Path) -> None:
    told = f'{GOOD}\n{WHEEL}]\npackages = ["more"]\n'
    plugin = project(tmp_path, told)
    (plugin / "more").mkdir()
    assert ids(plugin) == ["EX208"]
    moved = f'{WHEEL}.force-include]\n"exo_myengine" = "exo_myengine"\n'
    assert ids(project(tmp_path, told + moved)) == []


def test_a_module_is_not_taken_for_a_package_of_its_own(tmp_path: Path) -> None:
    config = swapped(GOOD, "exo_myengine.models:", "models:")
    assert ids(project(tmp_path, config)) == ["EX106"]


def test_a_namespace_package_has_parts_elsewhere(tmp_path: Path) -> None:
    plugin = project(tmp_path, swapped(GOOD, '"exo_myengine.', '"acme.exo_myengine.'))
    (plugin / "src" / "acme").mkdir(parents=True)
    package = (plugin / "exo_myengine").rename(plugin / "src" / "acme" / "exo_myengine")
    init = package / "__init__.py"
    init.write_text("from acme import other\nfrom acme.common import log\n", encoding="utf-8")
    assert ids(plugin) == []
    init.write_text("from acme.exo_myengine.gone import log\n", encoding="utf-8")
    assert ids(plugin) == ["EX704"]


@pytest.mark.parametrize("name", ["env", "build", "dist", "venv"])
def test_parts_of_a_package_have_any_name(tmp_path: Path, name: str) -> None:
    init = f"from .{name} import DEVICE\n"
    plugin = guide.mended(tmp_path, init=init)
    assert ids(plugin) == ["EX704"]
    guide.write(plugin, {f"exo_myengine/{name}/__init__.py": "DEVICE = 1\n"})
    assert ids(plugin) == []


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_linked_folders(tmp_path: Path) -> None:
    plugin = guide.mended(tmp_path / "p", init="from .common.util import X\n")
    guide.write(tmp_path, {"common/util.py": "X = 1\n"})
    (plugin / "exo_myengine" / "common").symlink_to(tmp_path / "common")
    assert ids(plugin) == []
    (tmp_path / "common" / "round").symlink_to(tmp_path / "common")
    (tmp_path / "common" / "up").symlink_to(tmp_path)
    (tmp_path / "other.py").touch()
    assert ids(plugin) == []
    assert len(read_plugin(plugin).package.modules) == 5


COMPILED = {
    "maturin": '[build-system]\nrequires = ["maturin"]\nbuild-backend = "maturin"\n',
    "scikit-build": '[build-system]\nrequires = []\nbuild-backend = "scikit_build_core.build"\n',
    "in the tree": '[build-system]\nrequires = []\nbuild-backend = "ours"\nbackend-path = ["."]\n',
    "extension": '[[tool.setuptools.ext-modules]]\nname = "exo_myengine._npu"\n',
    "hook": '[build-system]\nrequires = []\nbuild-backend = "hatchling.build"\n'
    '[tool.hatch.build.hooks.custom]\npath = "hook.py"\n',
    "poetry": '[tool.poetry]\nbuild = "build.py"\n',
}


@pytest.mark.parametrize("build", COMPILED.values(), ids=list(COMPILED))
def test_a_build_that_compiles(tmp_path: Path, build: str) -> None:
    init = "from ._npu import Device\n"
    plugin = guide.mended(tmp_path, init=init, config=f"{GOOD}\n{build}")
    assert ids(plugin) == []
    (plugin / "pyproject.toml").write_text(GOOD, encoding="utf-8")
    assert ids(plugin) == ["EX704"]


@pytest.mark.parametrize(
    ("name", "source"),
    [("setup.py", "setup(ext_modules=cythonize('npu.c'))"), ("pdm_build.py", "")],
)
def test_code_that_makes_modules(tmp_path: Path, name: str, source: str) -> None:
    plugin = guide.mended(tmp_path, init="from ._npu import Device\n")
    guide.write(plugin, {"setup.py": "setup()\n"})
    assert ids(plugin) == ["EX704"]
    guide.write(plugin, {name: source})
    assert ids(plugin) == []


def entry(old: str, new: str) -> str:
    return swapped(GOOD, old, new)


ALIAS = entry("engine:MyInferenceEngine", "plugin:Engine")


@pytest.mark.parametrize(
    ("source", "names", "unseen"),
    [
        ("from .engine import MyInferenceEngine as Engine", {"MyInferenceEngine"}, 0),
        ("Engine = _make()", set(), 1),
        ("from acme_sdk import Engine", set(), 1),
        ("def __getattr__(name):\n    return {'Engine': 1}[name]", set(), 1),
        ("def Engine(downloader):\n    return None", set(), 0),
        ("Other = 1", {"Engine"}, 0),
        ("class (", set(), 0),
    ],
)
def test_what_an_engine_is_called(
    tmp_path: Path, source: str, names: set[str], unseen: int
) -> None:
    plugin = guide.mended(tmp_path, config=ALIAS)
    guide.write(plugin, {"exo_myengine/plugin.py": f"{source}\n"})
    found = read_plugin(plugin)
    assert found.engine_names == names
    assert len(found.unseen) == unseen
    assert "EX403" not in ids(plugin) or names == {"Engine"}


def test_an_engine_that_is_compiled_is_unseen(tmp_path: Path) -> None:
    plugin = guide.mended(tmp_path, config=entry("exo_myengine.engine:", "exo_myengine.fast:"))
    assert read_plugin(plugin).unseen == []
    (plugin / "exo_myengine" / "fast.pyx").touch()
    assert ids(plugin) == []
    [sentence] = read_plugin(plugin).unseen
    assert sentence.startswith("myengine of exo.inference_engines was not looked at:")
    assert read_plugin(plugin).engine_names == {"MyInferenceEngine"}


def test_exo_by_its_address_is_the_host(tmp_path: Path) -> None:
    direct = "exo @ git+https://github.com/jfreed-dev/exo-rkllama"
    plugin = guide.mended(tmp_path, config=entry('"numpy"', f'"numpy", "{direct}"'))
    [fault] = check(plugin, [], []).faults
    assert fault.finding.message == (
        f"{direct} is among the dependencies: the host is there before its plugins"
    )
    assert fixed(plugin) == 0


@pytest.mark.parametrize(
    ("coding", "encoding", "found"),
    [
        ("# -*- coding: latin-1 -*-", "latin-1", []),
        ("# no coding", "latin-1", ["EX002"]),
        ("# coding: nonsense", "utf-8", ["EX002"]),
        ("\ufeff# a mark", "utf-8", []),
    ],
)
def test_the_encoding_of_a_source(
    tmp_path: Path, coding: str, encoding: str, found: list[str]
) -> None:
    plugin = guide.mended(tmp_path)
    source = f"{coding}\n\n# Gerät\nNAME = 'Gerät'\n"
    (plugin / "exo_myengine" / "names.py").write_bytes(source.encode(encoding))
    assert ids(plugin) == found


POETRY_2 = HEAD + "\n" + GROUPS.replace("project.entry-points", "tool.poetry.plugins")
COMPILED_ENGINE = entry("exo_myengine.engine:", "exo_myengine.fast:")
IGNORED = "\n[tool.exo-engine.ignore]\nEX206 = 'no types'\nEX201 = 'a fork of that name'\n"
NO_FAULT = {
    "poetry 1": {"pyproject.toml": POETRY},
    "poetry 2": {"pyproject.toml": POETRY_2},
    "setup.cfg": {"pyproject.toml": BUILD, "setup.cfg": SETUP_CFG},
    "compiled": {"pyproject.toml": COMPILED_ENGINE, "exo_myengine/fast.pyx": ""},
    "dynamic": {"pyproject.toml": BUILD + DYNAMIC, "setup.cfg": SETUP_CFG},
    "ignored": {"pyproject.toml": entry('["numpy"]', '["exo"]') + IGNORED},
}


@pytest.mark.parametrize("files", NO_FAULT.values(), ids=list(NO_FAULT))
def test_what_has_no_fault_is_not_changed(tmp_path: Path, files: dict[str, str]) -> None:
    plugin = guide.write(guide.mended(tmp_path), files)
    if "ignore" in files["pyproject.toml"]:
        (plugin / "exo_myengine" / "py.typed").unlink()
    before = {path: path.read_bytes() for path in plugin.rglob("*") if path.is_file()}
    assert run(plugin, "--diff") == (0, "", "")
    assert run(plugin, "--fix")[0] == 0
    assert {path: path.read_bytes() for path in plugin.rglob("*") if path.is_file()} == before


def test_an_entry_point_that_may_be_built_is_not_led_elsewhere(tmp_path: Path) -> None:
    config = swapped(COMPILED_ENGINE, "fast:MyInferenceEngine", "fast:MyInferenceEngine [npu]")
    plugin = guide.mended(tmp_path, config=config)
    (plugin / "exo_myengine" / "fast.pyx").touch()
    assert ids(plugin) == ["EX105"]
    assert fixed(plugin) == 1
    assert (plugin / "pyproject.toml").read_text(encoding="utf-8") == config


EXTRAS = '\n[tool.poetry.extras]\nhost = ["exo", "numpy"]\n'
MODELS_OF_POETRY = (
    '[tool.poetry.plugins."exo.models"]\nmyengine = "exo_myengine.models:MY_MODELS"\n'
)


@pytest.mark.parametrize(
    ("config", "fault", "gone", "there"),
    [
        (swapped(POETRY, "numpy =", 'exo = "*"\nnumpy ='), "EX201", 'exo = "*"', "numpy"),
        (
            swapped(POETRY, "numpy =", 'exo = {version = "*", optional = true}\nnumpy =') + EXTRAS,
            "EX201",
            '"exo"',
            'host = ["numpy"]',
        ),
        (swapped(POETRY, '"exo.models"', '"exo.model"'), "EX104", '"exo.model"', '"exo.models"'),
        (swapped(POETRY, '"exo.models"', "exo-models"), "EX104", "exo-models", '"exo.models"'),
        (swapped(POETRY, ":MY_MODELS", ":MODELS"), "EX107", ":MODELS", ":MY_MODELS"),
        (swapped(POETRY, MODELS_OF_POETRY, ""), "EX102", "project.entry", MODELS_OF_POETRY),
        (swapped(POETRY_2, MODELS_OF_POETRY, ""), "EX102", "project.entry", MODELS_OF_POETRY),
        (POETRY.partition("\n[tool.poetry.pl")[0] + "\n", "EX101", "project", "poetry.plugins"),
    ],
)  # fmt: skip
def test_tables_of_poetry_are_mended(
    tmp_path: Path, config: str, fault: str, gone: str, there: str
) -> None:
    plugin = project(tmp_path, config)
    assert fault in ids(plugin)
    assert fixed(plugin) == 0
    text = (plugin / "pyproject.toml").read_text(encoding="utf-8")
    assert gone not in text
    assert there in text


def test_setup_cfg_is_mended_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = swapped(SETUP_CFG, "exo.models =", "exo.model =")
    broken = swapped(broken, "    numpy", "    exo\n    numpy")
    plugin = project(tmp_path, BUILD, setup_cfg=broken)
    assert ids(plugin) == ["EX104", "EX201"]
    monkeypatch.chdir(tmp_path.parent)
    assert run(tmp_path.name, "--fix")[0] == 0
    assert (plugin / "setup.cfg").read_text(encoding="utf-8") == SETUP_CFG


def test_a_line_of_setup_cfg_that_says_more_stays(tmp_path: Path) -> None:
    cfg = swapped(SETUP_CFG, "\n    numpy>=1.26", " numpy>=1.26; exo")
    plugin = project(tmp_path, BUILD, setup_cfg=cfg)
    assert fixed(plugin) == 1
    assert (plugin / "setup.cfg").read_text(encoding="utf-8") == cfg


def test_an_optional_dependency_of_poetry_is_an_extra(tmp_path: Path) -> None:
    config = swapped(POETRY, "numpy =", 'exo = {version = "*", optional = true}\nnumpy =') + EXTRAS
    [fault] = check(project(tmp_path, config), [], []).faults
    assert fault.finding.message.startswith("exo is among the extra host:")


def test_two_names_for_one_group_are_merged(tmp_path: Path) -> None:
    more = '\n[project.entry-points."exo-model"]\nmore = "exo_myengine.models:MY_MODELS"\n'
    plugin = guide.mended(tmp_path, config=entry('"exo.models"', '"exo.model"') + more)
    assert set(ids(plugin)) == {"EX104"}
    assert fixed(plugin) == 0
    assert len(read_plugin(plugin).in_group("exo.models")) == 2


@pytest.mark.parametrize(
    "config",
    [
        "tool = 3\n" + swapped(HEAD, '["numpy"]', '["exo"]'),
        swapped(HEAD, '["numpy"]', "{numpy = 1}")
        + "\n[project.optional-dependencies]\nt = ['exo']\n",
        HEAD + "\nentry-points = 1\n",
        GOOD + "[project.entry-points]\n'exo.model' = 'x'\n",
        swapped(POETRY, "numpy =", 'exo = "*"\nnumpy =') + "\n[tool.poetry.extras]\na = 'exo'\n",
    ],
)
def test_tables_of_another_shape_are_mended_without_a_traceback(
    tmp_path: Path, config: str
) -> None:
    assert run(guide.mended(tmp_path, config=config), "--fix")[0] in {0, 1, 2}
