"""--fix: what has one right answer, with comments and order kept."""

import ast
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from . import host
from .checks import static_checks
from .checks.entry_points import misspelt
from .checks.packaging import is_exo, project_of
from .files import CannotRunError, open_project, reason
from .findings import Place
from .plugin import EntryPoint, Plugin
from .reading import read_plugin
from .run import ignores, read
from .source import Class

_ADDED = dict(zip(host.GROUPS, ("EX101", "EX102", "EX103"), strict=True))


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
    plugin = read_plugin(open_project(path, path))
    if plugin.problems:
        raise CannotRunError(f"pyproject.toml can't be mended: {plugin.problems[0].message}")
    results = read(plugin, set(static_checks()) - ignores(plugin).keys())
    faults = {(r.id, finding.place) for r in results for finding in r.findings}
    mender = _Mender(plugin, path, faults)
    changes = [*mender.setup_cfg(), *mender.pyproject(), *mender.py_typed()]
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


class _Mender:
    """What the checks found, and nothing else, is changed."""

    def __init__(self, plugin: Plugin, path: Path, faults: set[tuple[str, Place]]) -> None:
        self.plugin, self.path, self.faults = plugin, path, faults
        self.ids = {id_ for id_, _ in faults}

    def py_typed(self) -> list[Change]:
        folders = sorted(place.path for id_, place in self.faults if id_ == "EX206")
        return [Change(f"{folder}/py.typed", None, "") for folder in folders]

    def setup_cfg(self) -> list[Change]:
        if not self.plugin.setup_cfg.text:
            return []
        before = self._text("setup.cfg")
        lines = self._with_right_names("setup.cfg", before)
        for text, _, place in self.plugin.metadata.requirements:
            if ("EX201", place) in self.faults and place.path == "setup.cfg":
                line = lines[place.line - 1]
                lines[place.line - 1] = "" if line.strip() == text else line
        after = "".join(lines)
        return [Change("setup.cfg", before, after)] if after != before else []

    def pyproject(self) -> list[Change]:
        before = self._text("pyproject.toml")
        try:
            document = tomlkit.parse("".join(self._with_right_names("pyproject.toml", before)))
            if "EX201" in self.ids:
                _drop_exo(_inside(document, "project"))
                _drop_exo_of_poetry(_inside(document, "tool", "poetry"))
            if self.plugin.entry_points_table:
                self._mend_groups(document)
            after = tomlkit.dumps(document)
        except TOMLKitError as error:
            raise CannotRunError(f"pyproject.toml can't be mended: {error}") from error
        return [Change("pyproject.toml", before, after)] if after != before else []

    def _text(self, file: str) -> str:
        """As bytes: the line ends stay what they are."""
        return (self.path / file).read_bytes().decode("utf-8")

    def _with_right_names(self, file: str, text: str) -> list[str]:
        """Rename misspelt groups on their own lines: tomlkit has no call that keeps the place."""
        lines = text.splitlines(keepends=True)
        taken = set(self.plugin.groups)
        for name, place in self.plugin.groups.items():
            right = misspelt(name)
            known = place.path == file and place.line and ("EX104", place) in self.faults
            if known and right is not None and right not in taken:
                taken.add(right)
                lines[place.line - 1] = _renamed(lines[place.line - 1], file, name, right)
        return lines

    def _mend_groups(self, document: Any) -> None:
        *above, last = self.plugin.entry_points_table
        holder = _inside(document, *above)
        if not isinstance(holder.get(last, {}), dict):
            return
        if "EX104" in self.ids:
            _merge_groups(_inside(holder, last))
        found = _candidates(self.plugin)
        for group, [target] in ((g, t) for g, t in found.items() if len(t) == 1):
            if _ADDED[group] in self.ids:
                if last not in holder:
                    holder[last] = tomlkit.table(is_super_table=True)
                table = tomlkit.table()
                table[_engine_name(self.plugin)] = target
                holder[last][group] = table
            elif len(entries := self.plugin.in_group(group)) == 1 and self._is_lost(entries[0]):
                holder[last][group][entries[0].name] = target

    def _is_lost(self, entry: EntryPoint) -> bool:
        """Whether a lone entry point leads nowhere, so that it can mean the one target alone."""
        faulty = any((id_, entry.place) in self.faults for id_ in ("EX105", "EX106", "EX107"))
        return faulty and not self.plugin.may_be_built(entry.value.partition(":")[0].strip())


def _renamed(line: str, file: str, old: str, new: str) -> str:
    quote = next((q for q in "\"'" if f"{q}{old}{q}" in line), "")
    needed = quote or ("" if file == "setup.cfg" else '"')
    return line.replace(f"{quote}{old}{quote}", f"{needed}{new}{needed}", 1)


def _inside(data: Any, *keys: str) -> Any:
    """A table of a document; one of its own where there is none."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def _drop_exo(project: Any) -> None:
    """Take PyPI's exo out of the dependencies and the extras."""
    extras = _inside(project, "optional-dependencies")
    for extra, needs in [("", project.get("dependencies")), *extras.items()]:
        for number in reversed(range(len(needs) if isinstance(needs, list) else 0)):
            if is_exo(str(needs[number]), extra):
                del needs[number]


def _drop_exo_of_poetry(poetry: Any) -> None:
    needs = _inside(poetry, "dependencies")
    for name in [name for name in needs if project_of(name) == "exo"]:
        del needs[name]
        for extra in _inside(poetry, "extras").values():
            if isinstance(extra, list) and name in extra:
                extra.remove(name)


def _merge_groups(groups: Any) -> None:
    """Move the entries of a misspelt group to the right one, where both are there."""
    for name in list(groups):
        right = misspelt(name)
        if right is not None and right in groups and isinstance(groups[name], dict):
            for key, value in groups[name].items():
                groups[right].setdefault(key, value)
            del groups[name]


def _engine_name(plugin: Plugin) -> str:
    """The name that the other groups use, else the project's without exo-."""
    for group in host.GROUPS:
        for entry in plugin.in_group(group):
            return entry.name
    name = (plugin.metadata.name or "engine").removeprefix("exo-").replace("-", "_")
    return f"{name}_plugin" if name in host.BUILT_IN_ENGINES else name


def _candidates(plugin: Plugin) -> dict[str, list[str]]:
    """What each group can mean: a class that extends exo's, names of cards, detect functions."""
    found: dict[str, list[str]] = {group: [] for group in host.GROUPS}
    for module in plugin.package:
        last = module.name.rpartition(".")[2]
        for name, node in module.names.items():
            if isinstance(node, ast.ClassDef):
                if Class(plugin.package, module, node).is_engine:
                    found[host.GROUP_ENGINES].append(f"{module.name}:{name}")
            elif isinstance(node, ast.FunctionDef):
                if last == "detection" and name.startswith("detect"):
                    found[host.GROUP_DETECTORS].append(f"{module.name}:{name}")
            elif last == "models" and name.endswith("MODELS") and not name.startswith("_"):
                found[host.GROUP_MODELS].append(f"{module.name}:{name}")
    return found
