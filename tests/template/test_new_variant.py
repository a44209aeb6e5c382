"""A new variant is one folder, one choice and one line, and its name in an overlay's list."""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import copier
import pytest
import yaml
from conftest import LIST_FILES, REPOSITORY, variants
from test_rendered_plugin import make_venv, run, run_its_tests, uv

NAME = "abacus"
LINE = f"""
{NAME}:
  type: str
  help: Folder of the variant
  when: false
  default: "{{{{ '.' if variant == '{NAME}' else '' }}}}"
  validator: "{NAME} follows from variant. Leave it out of --data."
"""


@pytest.fixture(scope="module")
def grown(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with one more variant, whose backend counts its steps."""
    folder = tmp_path_factory.mktemp("grown") / "template"
    shutil.copytree(template, folder)
    own = folder / "template" / f"{{{{ {NAME} }}}}"
    shutil.copytree(folder / "template" / "{{ numpy }}", own)
    backend = own / "{{ package }}" / "backend.py"
    source = backend.read_text(encoding="utf-8")
    counted = source.replace(
        "        return self.step_batch(",
        "        self.steps += 1\n        return self.step_batch(",
    )
    counted = counted.replace(
        "    def __init__(self) -> None:\n",
        "    def __init__(self) -> None:\n        self.steps = 0\n",
    )
    assert counted.count("self.steps") == 2
    backend.write_text(counted, encoding="utf-8")
    config = folder / "copier.yml"
    text = config.read_text(encoding="utf-8")
    text = text.replace("  default: numpy\n", f"    One bead a bit: {NAME}\n  default: numpy\n", 1)
    text, count = re.subn(
        r"(checkpoint:\n(?:  .*\n)*?  default: .*)\['numpy'", rf"\1['{NAME}', 'numpy'", text
    )
    assert count == 1
    config.write_text(text + LINE, encoding="utf-8")
    return folder


def test_it_renders_and_its_tests_pass(grown: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "exo-beads"
    copier.run_copy(str(grown), plugin, data={"variant": NAME}, defaults=True, quiet=True)
    assert "self.steps" in (plugin / "exo_beads" / "backend.py").read_text(encoding="utf-8")
    python = make_venv(tmp_path / "venv")
    run(uv(), "pip", "install", "--quiet", "--python", python, f"{plugin}[test]")
    run_its_tests(python, plugin, tmp_path / "tests")
    for check in (["check"], ["format", "--check"]):
        run(sys.executable, "-m", "ruff", *check, "--no-cache", cwd=plugin)


def folders(config: dict[str, dict[str, str]]) -> dict[str, set[str]]:
    """Of each variant, the folders of template/ that are chosen with it."""
    computed = {
        name: str(question["default"])
        for name, question in config.items()
        if not name.startswith("_")
        and question.get("when") is False
        and "variant" in question["default"]
    }
    lines = {}
    for variant in config["variant"]["choices"].values():
        chosen = {name for name, text in computed.items() if re.search(rf"'{variant}'", text)}
        lines[variant] = chosen
    return lines


def test_no_path_stands_in_two_folders_that_are_chosen_together() -> None:
    config = yaml.safe_load((REPOSITORY / "copier.yml").read_text(encoding="utf-8"))
    listing = run(*LIST_FILES, "--", "template", cwd=REPOSITORY).split("\0")
    for variant, chosen in folders(config).items():
        assert variant in chosen
        seen: dict[str, str] = {}
        for name in filter(None, listing):
            home, _, rest = name.removeprefix("template/").partition("/")
            folder = re.fullmatch(r"\{\{ (\w+) \}\}", home)
            if folder and folder[1] in chosen:
                path = rest
            elif folder and folder[1] != "package":
                continue
            else:
                path = f"{home}/{rest}" if rest else home
            path = path.removesuffix(".jinja")
            if path.startswith("_variant"):
                continue
            assert path not in seen, f"{variant}: {path} stands in {seen.get(path)} and {home}"
            seen[path] = home


def test_common_files_name_no_variant() -> None:
    """A common file that asks for a variant would be touched by each new one."""
    asks = re.compile(rf"variant *(==|!=|in)|\b({'|'.join(variants())})\b *(==|in)")
    for name in ("hooks/answers.jinja", *common_files()):
        path = REPOSITORY / name
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not asks.search(line), f"{name}: {line}"


def common_files() -> list[str]:
    """The template's files that every variant has."""
    listing = run(*LIST_FILES, "--", "template", cwd=REPOSITORY).split("\0")
    others = re.compile(r"template/\{\{ (?!package)(?!_copier)\w+ \}\}/")
    return [n for n in listing if n and not others.match(n) and (REPOSITORY / n).is_file()]


def test_every_variant_is_tested(plugin_of: Callable[[str], Path]) -> None:
    for variant in variants():
        assert (plugin_of(variant) / "tests" / "device.py").is_file()
