"""Bring the listings in this folder up to date: paths from a render, lines as they are.

    python tests/listing/update.py

A new module gets the first line of its docstring, any other new file an empty line, which the tests
refuse: write what the file is for.
"""

import ast
import re
import tempfile
from pathlib import Path

import copier
import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HEAD = "| file | what for |\n| --- | --- |\n"


def files(plugin: Path) -> list[str]:
    """The paths of a rendered plugin's files, in order; what tools leave behind is not its own."""
    made = {".git", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", "dist"}
    paths = (path.relative_to(plugin) for path in plugin.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not made & set(path.parts))


def lines(listing: Path) -> dict[str, str]:
    """What a listing says of each path."""
    text = listing.read_text(encoding="utf-8") if listing.exists() else ""
    return dict(re.findall(r"^\| `(.+)` \| (.*?) ?\|$", text, re.M))


def summary(path: Path) -> str:
    """What a module says of itself, in a line."""
    if path.suffix != ".py":
        return ""
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return said.split("\n", 1)[0].rstrip(".").replace("|", "\\|")


def main() -> None:
    question = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))["variant"]
    for variant in question["choices"].values():
        with tempfile.TemporaryDirectory() as name:
            plugin = Path(name) / f"exo-{variant}"
            # HEAD is the working tree with what is not committed; without it, it is the last tag.
            data = {"variant": variant}
            copier.run_copy(str(ROOT), plugin, data=data, defaults=True, quiet=True, vcs_ref="HEAD")
            known = lines(HERE / f"{variant}.md")
            paths = files(plugin)
            about = {path: known.get(path) or summary(plugin / path) for path in paths}
        rows = "".join(f"| `{path}` | {line} |\n" for path, line in about.items())
        title = f"# exo-{variant}\n\nThe files of a plugin of this variant with every default.\n\n"
        (HERE / f"{variant}.md").write_text(title + HEAD + rows, encoding="utf-8")


if __name__ == "__main__":
    main()
