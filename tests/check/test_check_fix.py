"""--fix mends what has one right answer; --diff shows it and writes nothing."""

import tomllib
from pathlib import Path

import guide_plugin as guide
import pytest
from checking import copy_of, ids, run

COMMENTED = guide.GOOD_CONFIG.replace(
    'dependencies = ["numpy"]\n',
    "# what it needs\ndependencies = [\n"
    '    "exo",          # the host\n'
    '    "numpy>=1.26",  # arrays\n'
    '    "rich",\n'
    "]\n\n[project.optional-dependencies]  # extras\n"
    'test = ["pytest", "exo>=0.0.1"]\n',
)
ENTRIES = """\
[project.entry-points."exo.inference_engines"]
myengine = "exo_myengine.engine:MyInferenceEngine"

[project.entry-points."exo.models"]
myengine = "exo_myengine.models:MY_MODELS"

[project.entry-points."exo.device_detectors"]
mydevice = "exo_myengine.detection:detect_my_device"
"""


def text_of(plugin: Path) -> str:
    return (plugin / "pyproject.toml").read_text(encoding="utf-8")


def test_exo_goes_and_the_rest_stays(tmp_path: Path) -> None:
    plugin = guide.mended(tmp_path, config=COMMENTED)
    assert set(ids(plugin)) == {"EX201"}
    assert run(plugin, "--fix")[0] == 0
    text = text_of(plugin)
    assert "exo>=" not in text
    assert '"exo"' not in text
    for kept in (
        "# what it needs",
        "# arrays",
        "# extras",
        '"rich"',
        '"pytest"',
        "# pyproject.toml",
    ):
        assert kept in text
    kept = [
        line
        for line in COMMENTED.splitlines()
        if "exo" not in line.replace("exo_", "").replace("exo.", "").replace("exo-", "")
    ]
    lines = text.splitlines()
    assert [line for line in lines if line in kept] == kept


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ('"exo.inference_engines"', '"exo.inference_engine"'),
        ('"exo.models"', '"exo-models"'),
        ('"exo.device_detectors"', '"exo.device_detector"'),
        (":MyInferenceEngine", ":MyEngine"),
        ("exo_myengine.models:", "exo_myengine.model:"),
        ("exo_myengine.engine:MyInferenceEngine", "exo_myengine.engine"),
        ("detection:detect_my_device", "detection:detect"),
    ],
)
def test_a_misspelt_entry_point_is_mended_in_its_place(
    tmp_path: Path, wrong: str, right: str
) -> None:
    plugin = guide.mended(tmp_path, config=guide.GOOD_CONFIG.replace(wrong, right))
    assert ids(plugin)
    assert run(plugin, "--fix")[0] == 0
    assert text_of(plugin) == guide.GOOD_CONFIG


@pytest.mark.parametrize("group", ["exo.inference_engines", "exo.models", "exo.device_detectors"])
def test_a_missing_group_is_registered(tmp_path: Path, group: str) -> None:
    head, _, rest = guide.GOOD_CONFIG.partition(f'[project.entry-points."{group}"]\n')
    plugin = guide.mended(tmp_path, config=head + rest.partition("\n")[2].lstrip())
    assert len(ids(plugin)) == 1
    assert run(plugin, "--fix")[0] == 0


def test_all_groups_are_registered_from_nothing(tmp_path: Path) -> None:
    config = guide.GOOD_CONFIG.partition("[project.entry")[0]
    plugin = guide.mended(tmp_path, config=config)
    assert ids(plugin) == ["EX101", "EX102", "EX103"]
    assert run(plugin, "--fix")[0] == 0
    assert text_of(plugin).startswith(config.rstrip())


def test_two_engines_are_no_one_right_answer(tmp_path: Path) -> None:
    engine = guide.GOOD_ENGINE + "\n\nclass Other(MyInferenceEngine):\n    pass\n"
    config = guide.GOOD_CONFIG.replace(":MyInferenceEngine", ":Gone")
    plugin = guide.mended(tmp_path, engine=engine, config=config)
    before = text_of(plugin)
    assert run(plugin, "--fix")[0] == 1
    assert text_of(plugin) == before


def test_py_typed_is_added(tmp_path: Path) -> None:
    plugin = guide.mended(tmp_path)
    (plugin / "exo_myengine" / "py.typed").unlink()
    assert run(plugin, "--fix")[0] == 0
    assert (plugin / "exo_myengine" / "py.typed").read_bytes() == b""


def test_diff_shows_it_and_writes_nothing(tmp_path: Path) -> None:
    config = COMMENTED.replace('"exo.models"', '"exo.model"')
    plugin = guide.mended(tmp_path, config=config)
    (plugin / "exo_myengine" / "py.typed").unlink()
    before = {p: p.read_bytes() for p in plugin.rglob("*") if p.is_file()}
    for options in (["--diff"], ["--fix", "--diff"]):
        code, out, _ = run(plugin, *options)
        assert code == 1
        assert '-[project.entry-points."exo.model"]\n+[project.entry-points."exo.models"]\n' in out
        assert "--- /dev/null\n+++ b/exo_myengine/py.typed\n" in out
        assert "--- a/pyproject.toml\n+++ b/pyproject.toml\n" in out
        assert {p: p.read_bytes() for p in plugin.rglob("*") if p.is_file()} == before


def test_a_clean_plugin_has_no_difference(rkllm_plugin: Path, tmp_path: Path) -> None:
    plugin = copy_of(rkllm_plugin, tmp_path / "p")
    before = text_of(plugin)
    assert run(plugin, "--diff") == (0, "", "")
    assert run(plugin, "--fix")[0] == 0
    assert text_of(plugin) == before


def test_line_ends_stay(tmp_path: Path) -> None:
    plugin = guide.mended(tmp_path)
    path = plugin / "pyproject.toml"
    path.write_bytes(COMMENTED.replace("\n", "\r\n").encode())
    assert run(plugin, "--fix")[0] == 0
    data = path.read_bytes()
    assert data.count(b"\r\n") == data.count(b"\n")


def test_what_cant_be_mended_is_refused(tmp_path: Path) -> None:
    plugin = guide.mended(tmp_path, config="[project")
    code, out, err = run(plugin, "--fix")
    assert (code, out) == (2, "")
    assert err.startswith("exo-engine: pyproject.toml can't be mended: this is no TOML")


def test_a_misspelt_group_beside_the_right_one_is_merged(tmp_path: Path) -> None:
    card = 'more = "exo_myengine.models:MY_MODELS"\n'
    extra = f'\n[project.entry-points."exo.model"]\n{card}'
    plugin = guide.mended(tmp_path, config=guide.GOOD_CONFIG + extra)
    assert ids(plugin) == ["EX104"]
    assert run(plugin, "--fix")[0] == 0
    groups = tomllib.loads(text_of(plugin))["project"]["entry-points"]
    assert groups["exo.models"].keys() == {"myengine", "more"}
    assert "exo.model" not in groups
