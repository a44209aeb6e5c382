"""--fix: what has one right answer, with comments, order and line ends kept."""

import difflib
import re
from pathlib import Path

from .checks import static_checks
from .checks.entry_points import misspelt
from .checks.packaging import is_exo
from .files import CannotRunError, open_project, reason
from .plugin import Plugin
from .reading import read_plugin
from .run import ignores, read

Change = tuple[str, str | None, str]  # a file, before (None: it is new) and after


def apply(path: Path, write: bool) -> str:
    """Mend a project, or only show how; returns the differences. Raises CannotRunError."""
    if path.is_file():
        raise CannotRunError("a wheel can't be mended; mend its project and build it again")
    plugin = read_plugin(open_project(path, path))
    if plugin.problems:
        raise CannotRunError(f"pyproject.toml can't be mended: {plugin.problems[0].message}")
    results = read(plugin, static_checks().keys() - ignores(plugin).keys())
    found = {(r.id, finding.place) for r in results for finding in r.findings}
    changes = [*_pyproject(plugin, path, {id_ for id_, _ in found})]
    untyped = sorted(place.path for id_, place in found if id_ == "EX206")
    changes += [(f"{folder}/py.typed", None, "") for folder in untyped]
    for file, _, after in changes if write else []:
        try:
            (path / file).write_bytes(after.encode("utf-8"))
        except OSError as error:
            raise CannotRunError(f"{path / file}: {reason(error)}") from error
    return "".join(map(_difference, changes))


def _difference(change: Change) -> str:
    file, before, after = change
    old_lines, new_lines = (before or "").splitlines(True), after.splitlines(True)
    old = "/dev/null" if before is None else f"a/{file}"
    text = "".join(difflib.unified_diff(old_lines, new_lines, old, f"b/{file}"))
    return text or f"--- {old}\n+++ b/{file}\n"


def _pyproject(plugin: Plugin, path: Path, ids: set[str]) -> list[Change]:
    before = (path / "pyproject.toml").read_bytes().decode("utf-8")
    lines = before.splitlines(keepends=True)
    if "EX104" in ids:
        _rename_groups(plugin, lines)
    if "EX201" in ids:
        for text, extra, place in plugin.metadata.requirements:
            if is_exo(text, extra) and place.line:
                lines[place.line - 1] = _without(lines[place.line - 1], text)
    after = "".join(lines)
    return [("pyproject.toml", before, after)] if after != before else []


def _rename_groups(plugin: Plugin, lines: list[str]) -> None:
    """Each misspelt group, on its own line, unless the right one is there too."""
    taken = set(plugin.groups)
    for name, place in plugin.groups.items():
        right = misspelt(name)
        if right is not None and right not in taken and place.line:
            taken.add(right)
            form = re.compile(rf"""(["']?){re.escape(name)}\1""")
            line = lines[place.line - 1]
            lines[place.line - 1] = form.sub(lambda m, r=right: f'"{r}"', line, count=1)  # type: ignore[misc]  # the name is this turn's


def _without(line: str, requirement: str) -> str:
    """A line of an array without one of its texts; a line of its own goes."""
    item = re.compile(rf"""\s*(["']){re.escape(requirement)}\1\s*,?""")
    rest = item.sub("", line, count=1)
    bare = not rest.split("#")[0].strip()
    return "" if bare else re.sub(r",(\s*\])", r"\1", rest)
