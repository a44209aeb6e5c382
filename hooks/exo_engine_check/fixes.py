"""--fix: what has one right answer, with comments and order kept."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from . import host
from .checks.entry_points import misspelt
from .checks.packaging import project_of
from .files import CannotRunError, open_project, reason
from .plugin import Plugin, read_plugin
from .source import Module


@dataclass
class Change:
    """One file, before and after; before is None where it is new."""

    path: str
    before: str | None
    after: str


def apply(path: Path, write: bool) -> str:
    """Mend a project, or only show how; returns the differences. Raises CannotRunError."""
    if path.is_file():
        raise CannotRunError("a wheel can't be mended; mend its project and build it again")
    plugin = read_plugin(open_project(path))
    changes = [*_pyproject(plugin, path), *_py_typed(plugin)]
    for change in changes if write else []:
        try:
            (path / change.path).write_bytes(change.after.encode("utf-8"))
        except OSError as error:
            raise CannotRunError(f"{path / change.path}: {reason(error)}") from error
    return "".join(map(_difference, changes))


def _difference(change: Change) -> str:
    before = (change.before or "").splitlines(keepends=True)
    after = change.after.splitlines(keepends=True)
    old = "/dev/null" if change.before is None else f"a/{change.path}"
    lines = list(difflib.unified_diff(before, after, old, f"b/{change.path}"))
    return "".join(lines) or f"--- {old}\n+++ b/{change.path}\n"


def _py_typed(plugin: Plugin) -> list[Change]:
    found = []
    for name, base in plugin.bases.items():
        module = plugin.package.modules.get(name)
        folder = f"{base}/{name}" if base else name
        if module and module.is_package:
            marker = plugin.root.joinpath(*folder.split("/"), "py.typed")
            if not marker.is_file():
                found.append(Change(f"{folder}/py.typed", None, ""))
    return found


def _pyproject(plugin: Plugin, path: Path) -> list[Change]:
    if plugin.problems:
        raise CannotRunError(f"pyproject.toml can't be mended: {plugin.problems[0].message}")
    # As bytes: the line ends stay what they are.
    before = (path / "pyproject.toml").read_bytes().decode("utf-8")
    try:
        document = tomlkit.parse(_with_right_names(plugin, before))
        project = document.get("project")
        if isinstance(project, dict):
            _drop_exo(project)
            _merge_groups(project)
            _add_groups(plugin, project)
        after = tomlkit.dumps(document)
    except TOMLKitError as error:
        raise CannotRunError(f"pyproject.toml can't be mended: {error}") from error
    return [Change("pyproject.toml", before, after)] if after != before else []


def _drop_exo(project: Any) -> None:
    """Take PyPI's exo out of the dependencies and the extras."""
    extras = project.get("optional-dependencies", {})
    lists = [(project.get("dependencies"), False), *((needs, True) for needs in extras.values())]
    for needs, is_extra in lists:
        if not isinstance(needs, list):
            continue
        for number in range(len(needs) - 1, -1, -1):
            text = str(needs[number])
            if project_of(text) == "exo" and not (is_extra and "@" in text):
                del needs[number]


def _merge_groups(project: Any) -> None:
    """Move the entries of a misspelt group to the right one, where both are there."""
    groups = project.get("entry-points")
    for name in list(groups) if isinstance(groups, dict) else []:
        right = misspelt(name)
        if right is not None and right in groups and isinstance(groups[name], dict):
            for key, value in groups[name].items():
                groups[right].setdefault(key, value)
            del groups[name]


def _with_right_names(plugin: Plugin, text: str) -> str:
    """Rename misspelt groups on their own lines: tomlkit has no call that keeps the place."""
    lines = text.splitlines(keepends=True)
    for name in plugin.groups:
        right = misspelt(name)
        number = plugin.line("project", "entry-points", name).line
        if right is None or right in plugin.groups or not number:
            continue
        for quote in ('"', "'"):
            wrong = f"{quote}{name}{quote}"
            lines[number - 1] = lines[number - 1].replace(wrong, f"{quote}{right}{quote}", 1)
    return "".join(lines)


def _add_groups(plugin: Plugin, project: Any) -> None:
    """Register what the package plainly has: one engine, one dict of models, one detector."""
    found = {group: targets for group, targets in _candidates(plugin).items() if len(targets) == 1}
    groups = project.get("entry-points")
    name = _engine_name(plugin)
    for group, [target] in found.items():
        if isinstance(groups, dict) and groups.get(group):
            _mend_values(plugin, groups[group], group, target)
            continue
        if groups is None:
            groups = tomlkit.table(is_super_table=True)
            project["entry-points"] = groups
        table = tomlkit.table()
        table[name] = target
        groups[group] = table


def _mend_values(plugin: Plugin, entries: Any, group: str, right: str) -> None:
    """A lone entry point that leads nowhere leads to the only thing that it can mean."""
    known = [entry for entry in plugin.in_group(group) if entry.name in entries]
    if len(known) != 1:
        return
    [entry] = known
    module = plugin.package.modules.get(entry.module) if entry.is_well_formed else None
    if module is None or plugin.package.lacks(module, entry.attribute):
        entries[entry.name] = right


def _engine_name(plugin: Plugin) -> str:
    """The name that the other groups use, else the project's without exo-."""
    for group in host.GROUPS:
        for entry in plugin.in_group(group):
            return entry.name
    name = (plugin.metadata.name or "engine").removeprefix("exo-").replace("-", "_")
    return f"{name}_plugin" if name in host.BUILT_IN_ENGINES else name


def _candidates(plugin: Plugin) -> dict[str, list[str]]:
    import ast

    from .source import Class

    found: dict[str, list[str]] = {group: [] for group in host.GROUPS}
    for module in plugin.package:
        last = module.name.rpartition(".")[2]
        for name, definition in module.names.items():
            if definition.imported is not None:
                continue
            node = definition.node
            if isinstance(node, ast.ClassDef):
                if Class.read(plugin.package, module, node).is_engine:
                    found[host.GROUP_ENGINES].append(f"{module.name}:{name}")
            elif isinstance(node, ast.FunctionDef):
                if last == "detection" and name.startswith("detect"):
                    found[host.GROUP_DETECTORS].append(f"{module.name}:{name}")
            elif last == "models" and _is_public(name) and _has_cards(plugin, module, name):
                found[host.GROUP_MODELS].append(f"{module.name}:{name}")
    return found


def _is_public(name: str) -> bool:
    return name.endswith("MODELS") and not name.startswith("_")


def _has_cards(plugin: Plugin, module: Module, name: str) -> bool:
    from .evaluate import UnknownError, value_of

    try:
        value = value_of(plugin.package, module, name)
    except UnknownError:
        return False
    return isinstance(value, dict) and any(
        isinstance(c, dict) and "repo" in c for c in value.values()
    )
