"""No false alarm: rendered plugins and the guide's mended one, as tree and as wheel."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import guide_plugin as guide
import pytest
import yaml
from checking import ids
from conftest import REPOSITORY, render_into
from exo_engine_check.run import check
from test_rendered_plugin import build_wheel

QUESTIONS = yaml.safe_load((REPOSITORY / "copier.yml").read_text(encoding="utf-8"))
VARIANTS = sorted(QUESTIONS["variant"]["choices"].values())


@pytest.fixture(scope="session", params=VARIANTS)
def variant(
    template: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    """Every variant, with a name that is not the default."""
    folder = tmp_path_factory.mktemp("variant") / "exo-some-device"
    return render_into(template, folder, variant=request.param)


def test_a_rendered_plugin_is_clean(variant: Path) -> None:
    assert ids(variant) == []


def test_a_rendered_plugins_wheel_is_clean(variant: Path, tmp_path: Path) -> None:
    source = shutil.copytree(variant, tmp_path / variant.name)
    assert ids(build_wheel(source, tmp_path / "dist")) == []


@pytest.mark.parametrize("name", ["exo-x", "exo-my-long-device-name-2", "plugin-of-mine"])
def test_whatever_it_is_called(template: Path, tmp_path: Path, name: str) -> None:
    assert ids(render_into(template, tmp_path / name, variant="rkllm")) == []


def test_the_guides_plugin_has_one_finding_for_each_of_its_faults(tmp_path: Path) -> None:
    report = check(guide.as_it_is(tmp_path), [], [])
    found = [(f.id, str(f.finding.place), f.finding.message.split(" ")[-1]) for f in report.faults]
    assert found == [
        ("EX201", "pyproject.toml:5", "PyPI"),
        ("EX203", "pyproject.toml:2", "README"),
        ("EX204", "pyproject.toml:2", "licence"),
        ("EX205", "pyproject.toml:2", "missing"),
        ("EX206", "exo_myengine", "missing"),
        ("EX301", "exo_myengine/engine.py:7", "(node.py:129)"),
        ("EX305", "exo_myengine/engine.py:27", "temp"),
        ("EX307", "exo_myengine/engine.py:56", "arguments"),
        ("EX308", "exo_myengine/engine.py:7", "(main.py:186)"),
        ("EX309", "exo_myengine/engine.py:17", "_load_tokenizer()"),
        ("EX309", "exo_myengine/engine.py:49", "_run_inference()"),
        ("EX309", "exo_myengine/engine.py:57", "_load_model()"),
        ("EX313", "exo_myengine/engine.py:36", "has"),
        ("EX502", "exo_myengine/detection.py:3", "None"),
        ("EX503", "exo_myengine/detection.py:8", "here"),
    ]


def test_the_guides_plugin_is_clean_when_it_is_mended(tmp_path: Path) -> None:
    assert ids(guide.mended(tmp_path)) == []


def test_and_so_is_its_wheel(tmp_path: Path) -> None:
    source = guide.mended(tmp_path / "exo-myengine")
    assert ids(build_wheel(source, tmp_path / "dist")) == []


def test_a_package_below_src(tmp_path: Path) -> None:
    plugin = guide.mended(tmp_path)
    (plugin / "src").mkdir()
    (plugin / "exo_myengine").rename(plugin / "src" / "exo_myengine")
    assert ids(plugin) == []


def test_entry_points_in_setup_cfg(tmp_path: Path) -> None:
    config, _, groups = guide.GOOD_CONFIG.partition('[project.entry-points."')
    plugin = guide.mended(
        tmp_path, config=config.replace("[project]", "[project]\ndynamic = ['entry-points']")
    )
    lines = ["[options.entry_points]"]
    for line in f'[project.entry-points."{groups}'.splitlines():
        if line.startswith("["):
            lines.append(f"{line.split(chr(34))[1]} =")
        elif line:
            lines.append(f"    {line.replace(chr(34), '')}")
    (plugin / "setup.cfg").write_text("\n".join(lines), encoding="utf-8")
    assert ids(plugin) == []
    text = (plugin / "setup.cfg").read_text(encoding="utf-8")
    (plugin / "setup.cfg").write_text(text.replace("models:MY_", "models:YOUR_"), encoding="utf-8")
    assert ids(plugin) == ["EX107"]


def test_entry_points_of_poetry(tmp_path: Path) -> None:
    config = guide.GOOD_CONFIG.replace("project.entry-points", "tool.poetry.plugins")
    assert ids(guide.mended(tmp_path, config=config)) == []


MIXIN = guide.GOOD_ENGINE.replace(
    "class MyInferenceEngine(InferenceEngine):",
    "class Sampling:\n    async def sample(self, x, temp=0.0):\n        return x\n\n\n"
    "class MyInferenceEngine(Sampling, InferenceEngine):",
).replace("async def sample(self, x, temp=0.0, top_p=1.0)", "async def _sample(self, x)")

FOREIGN = guide.GOOD_ENGINE.replace(
    "class MyInferenceEngine(InferenceEngine):",
    "from enginekit import Base\n\n\nclass MyInferenceEngine(Base, InferenceEngine):",
).replace("async def sample(", "async def other(")

WRAPPED = guide.GOOD_ENGINE.replace(
    "    async def sample(", "    @enginekit.on_thread\n    def sample("
).replace("import numpy", "import enginekit\nimport numpy")

WIDE = guide.GOOD_ENGINE.replace("(self, x, temp=0.0, top_p=1.0)", "(self, x, *args, **kwargs)")

COPIED = guide.GOOD_ENGINE.replace(
    "        hidden = input_data.",
    "        input_data = input_data.copy()\n"
    "        input_data[0, 0] = 1\n        hidden = input_data.",
)

AWAITABLE = guide.GOOD_ENGINE.replace(
    "    async def ensure_shard(self, shard):",
    "    def ensure_shard(self, shard) -> 'Awaitable[None]':\n"
    "        return self._ensure(shard)\n\n"
    "    async def _ensure(self, shard):",
)


SCRIPT = f"{guide.GOOD_ENGINE}\n\nif __name__ == '__main__':\n    print(MyInferenceEngine(None))\n"

BOUNDED = guide.GOOD_ENGINE.replace(
    "        hidden = input_data.",
    "        self.seen[request_id] = input_data\n"
    "        while len(self.seen) > 9:\n"
    "            del self.seen[next(iter(self.seen))]\n"
    "        hidden = input_data.",
).replace("self.folder = None\n", "self.folder = None\n        self.seen = {}\n")

LATE = guide.GOOD_ENGINE.replace("        self.tokenizer = None\n", "")

HANDED_ON = guide.GOOD_ENGINE.replace(
    "if not shard.is_last_layer():", "if not enginekit.is_last(shard):"
).replace("import numpy", "import enginekit\nimport numpy")


ENGINES = {
    "mixin": MIXIN,
    "a base of a library": FOREIGN,
    "wrapped": WRAPPED,
    "wide": WIDE,
    "copied input": COPIED,
    "awaitable": AWAITABLE,
    "script": SCRIPT,
    "bounded cache": BOUNDED,
    "late tokenizer": LATE,
    "shard handed on": HANDED_ON,
}


@pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))
def test_other_ways_to_write_an_engine(tmp_path: Path, engine: str) -> None:
    assert engine != guide.GOOD_ENGINE
    assert ids(guide.mended(tmp_path, engine=engine)) == []


BUILT = """\
NAMES = ["my-model-7b", "my-model-13b"]
MY_MODELS = {}
for number, name in enumerate(NAMES):
    MY_MODELS[name] = {"layers": 32 + 8 * number, "repo": {"MyInferenceEngine": f"org/{name}"}}
"""

MERGED = """\
_SMALL = {"my-1b": dict(layers=16, repo={"MyInferenceEngine": "org/my-1b"})}
MY_MODELS = {**_SMALL, "my-7b": {"layers": 32, "repo": {"MyInferenceEngine": "org/my-7b"}}}
MY_MODELS["my-13b"] = {"layers": 40, "repo": {"MyInferenceEngine": "org/my-13b"}}
MY_MODELS |= {"my-70b": {"layers": 80, "repo": {"MyInferenceEngine": "org/my-70b"}}}
MY_MODELS.update({"my-405b": {"layers": 126, "repo": {"MyInferenceEngine": "org/my-405b"}}})
"""

READ = """\
import json
from pathlib import Path

MY_MODELS = json.loads(Path(__file__).with_name("models.json").read_text())
"""


@pytest.mark.parametrize("models", [BUILT, MERGED, READ], ids=["built", "merged", "read"])
def test_other_ways_to_write_models(tmp_path: Path, models: str) -> None:
    assert ids(guide.mended(tmp_path, models=models)) == []


def test_every_card_of_merged_models_is_read(tmp_path: Path) -> None:
    for layers in (16, 32, 40, 80, 126):
        models = MERGED.replace(str(layers), "0", 1)
        assert ids(guide.mended(tmp_path / str(layers), models=models)) == ["EX402"]


def test_modules_that_the_build_makes(tmp_path: Path) -> None:
    init = "from ._version import __version__\nfrom . import _npu\n"
    plugin = guide.mended(tmp_path, init=init)
    assert ids(plugin) == ["EX704"]
    (plugin / "exo_myengine" / "_npu.pyx").touch()
    assert ids(plugin) == []


def test_a_plugin_of_one_module(tmp_path: Path) -> None:
    config = guide.GOOD_CONFIG.replace("exo_myengine.models:", "exo_cards:")
    plugin = guide.mended(tmp_path, config=config.replace("exo_myengine.detection:", "exo_cards:"))
    (plugin / "exo_cards.py").write_text(guide.MODELS + guide.GOOD_DETECTION, encoding="utf-8")
    assert ids(plugin) == []


@pytest.mark.parametrize(
    "annotation", ["Optional[str]", "'str | None'", "Literal['printer'] | None", "str", "Name"]
)
def test_other_ways_to_annotate_a_detector(tmp_path: Path, annotation: str) -> None:
    detection = guide.GOOD_DETECTION.replace("str | None", annotation)
    assert ids(guide.mended(tmp_path, detection=detection)) == []


def test_repo_review_has_nothing_to_say(variant: Path) -> None:
    command = [sys.executable, "-m", "repo_review", "--format", "json", str(variant)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60)
    checks = json.loads(done.stdout)["checks"]
    assert [name for name, found in checks.items() if found["result"] is False] == []
    assert {"PY001", "EX101"} <= checks.keys()


def test_an_inner_function_may_block_on_a_thread(tmp_path: Path) -> None:
    plugin = guide.mended(tmp_path)
    engine = plugin / "exo_myengine" / "engine.py"
    method = """
    async def extra(self):
        import asyncio, time

        def work():
            time.sleep(1)

        {}
"""
    source = engine.read_text(encoding="utf-8")
    engine.write_text(source + method.format("await asyncio.to_thread(work)"), encoding="utf-8")
    assert ids(plugin) == []
    engine.write_text(source + method.format("time.sleep(1)"), encoding="utf-8")
    assert ids(plugin) == ["EX311"]
