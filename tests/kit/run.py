"""Runs the kit's tests: python tests/kit/run.py VARIANT [FILE...] [options of pytest].

Every variant is rendered under one fixed name, so that these tests are plain Python: the package is
`exo_kit`, the distribution `exo-kit`, the engine `kit`. FILE is a name in tests/kit, or in the
variant's folders there; without any, all run, but not the plugin's own.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

KIT = Path(__file__).parent
# The checker's stand-in for exo's node and API: a plugin's own has none.
NODE = KIT.parents[1] / "hooks/exo_engine_check/standin_node"
sys.path.insert(0, str(KIT.parent))

from conftest import copy_template, render_into  # noqa: E402 - the folder before

# A variant's own tests stand in the folders that template/ has for it.
FOLDERS = {
    "numpy": ("checkpoint", "numpy", "exo_0_3"),
    "onnx": ("checkpoint", "onnx"),
    "openai": ("server", "openai"),
    "rkllm": ("server", "rkllm"),
}
PROJECT = "exo-kit"


@dataclass(frozen=True)
class Names:
    """What a plugin is called, in the spellings that the tests have."""

    project: str = PROJECT
    engine: str = "kit"

    def spellings(self) -> tuple[str, ...]:
        """Distribution, package, prefix of the settings, class."""
        name = "".join(part.capitalize() for part in self.engine.split("_"))
        package = self.project.replace("-", "_")
        return self.project, package, f"EXO_{self.engine.upper()}_", f"{name}InferenceEngine"


FIXED = Names()


def render(template: Path, folder: Path, variant: str, names: Names = FIXED) -> Path:
    """The variant under this name, with the kit's tests in a folder of its tests."""
    plugin = render_into(
        template, folder, variant=variant, project_name=names.project, engine_name=names.engine
    )
    for part in ("", *FOLDERS[variant]):
        target = plugin / "tests/kit" / part
        target.mkdir(parents=True)
        for path in (path for kind in ("*.py", "*.c") for path in (KIT / part).glob(kind)):
            source = path.read_text(encoding="utf-8")
            for before, after in zip(FIXED.spellings(), names.spellings(), strict=True):
                source = source.replace(before, after)
            (target / path.name).write_text(source, encoding="utf-8")
    shutil.copytree(NODE, plugin / "tests/kit/standin_node")
    write_metadata(plugin)
    return plugin


def write_metadata(plugin: Path) -> None:
    """What an installed plugin has beside its package, so that exo finds its entry points."""
    project = tomllib.loads((plugin / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder = plugin / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    folder.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}"]
    lines += [f"Requires-Dist: {need}" for need in project["dependencies"]]
    (folder / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
    groups = {"console_scripts": project["scripts"]} | project["entry-points"]
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def command(plugin: Path, variant: str, *arguments: str) -> list[str]:
    """pytest's arguments for these files and options."""
    parts = ["tests/kit", *(f"tests/kit/{part}" for part in FOLDERS[variant])]
    chosen = []
    for argument in arguments:
        name, *node = argument.split("::")
        paths = [f"{part}/{name}" for part in parts if (plugin / part / name).is_file()]
        chosen += ["::".join([path, *node]) for path in paths] or [argument]
    if not any(argument.startswith("tests/kit") for argument in chosen):
        chosen.append("tests/kit")
    path = f"pythonpath=tests {' '.join(parts)}"
    return ["-m", "pytest", "-p", "no:cacheprovider", "-o", path, *chosen]


def environment(plugin: Path) -> dict[str, str]:
    """This process's variables, without those that would change what the tests see."""
    foreign = ("EXO_", "RKLLM_", "PYTEST_", "COV_", "PYTHON", "VIRTUAL_ENV")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return own | {"PYTHONPATH": str(plugin), "HF_HUB_OFFLINE": "1"}


def main(variant: str, *arguments: str) -> int:
    """Render the working tree, and run these tests on this Python; pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "template"
        copy_template(template)
        plugin = render(template, Path(folder) / PROJECT, variant)
        run = [sys.executable, *command(plugin, variant, *arguments)]
        return subprocess.run(run, cwd=plugin, env=environment(plugin)).returncode


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in FOLDERS:
        sys.exit(
            f"{(__doc__ or '').partition(chr(10))[0]}\nVARIANT is one of {', '.join(FOLDERS)}."
        )
    sys.exit(main(*sys.argv[1:]))
