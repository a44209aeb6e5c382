"""Reading a plugin from a project's folder or an unpacked wheel.

Only what stands in `[project]` or in a wheel is read: what Poetry's own tables, a setup.cfg or a
setup.py make of it, the wheel that they build says.
"""

import configparser
import email.parser
import itertools
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .files import (
    SKIPPED,
    CannotRunError,
    UnreadableError,
    is_file,
    is_folder,
    names,
    python_files,
    read_text,
    words,
)
from .findings import Finding, Place
from .plugin import EntryPoint, Metadata, Plugin
from .tables import table_of

_BUILD = "build the wheel and check it: exo-engine check dist/*.whl"
_NO_PACKAGES = SKIPPED | words("doc docs example examples exo scripts test tests")
MAX_FOLDERS = 2_000


def read_plugin(root: Path) -> Plugin:
    """Read a project's folder or an opened wheel. Raises CannotRunError."""
    info = next((path for path in names(root) if path.name.endswith(".dist-info")), None)
    if is_file(root / "pyproject.toml"):
        plugin = _read_tree(root)
    elif info is not None:
        plugin = _read_wheel(root, info)
    elif any(is_file(root / name) for name in ("setup.py", "setup.cfg")):
        raise CannotRunError(f"there is no pyproject.toml; {_BUILD}")
    else:
        raise CannotRunError("there is neither a pyproject.toml nor a wheel's .dist-info here")
    _read_package(plugin)
    return plugin


def _read_tree(root: Path) -> Plugin:
    plugin = Plugin(root)
    try:
        plugin.text = read_text(root / "pyproject.toml")
        plugin.pyproject = tomllib.loads(plugin.text)
    except UnreadableError as error:
        plugin.problems.append(Finding(plugin.config, f"the file {error}"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        number = re.search(r"line (\d+)", str(error))
        place = Place(plugin.config.path, int(number[1]) if number else 0)
        plugin.problems.append(Finding(place, f"this is no TOML: {error}"))
    project = table_of(plugin.pyproject, "project")
    if not plugin.problems and not project:
        raise CannotRunError(f"pyproject.toml has no [project]; {_BUILD}")
    plugin.metadata = _metadata_of_tree(plugin, project)
    if "entry-points" in plugin.metadata.dynamic:
        raise CannotRunError(f"only the build knows the entry points; {_BUILD}")
    for group, entries in table_of(project, "entry-points").items():
        plugin.groups[group] = plugin.line("project", "entry-points", group)
        for name, value in entries.items() if isinstance(entries, dict) else ():
            place = plugin.line("project", "entry-points", group, name)
            if isinstance(value, dict):
                message = f'the group has to be in quotes: [project.entry-points."{group}.{name}"]'
                plugin.problems.append(Finding(place, message))
            else:
                plugin.entry_points.append(EntryPoint(group, name, str(value), place))
    return plugin


def _metadata_of_tree(plugin: Plugin, project: dict[str, Any]) -> Metadata:
    def line(*path: str, text: str = "") -> Place:
        return plugin.line("project", *path, text=text)

    found = Metadata(line(), _text(project.get("name")))
    found.dynamic = frozenset(_texts(project.get("dynamic")))
    found.requires_python = _text(project.get("requires-python"))
    found.python_place = line("requires-python")
    for text in _texts(project.get("dependencies")):
        found.requirements.append((text, "", line("dependencies", text=text)))
    for extra, needs in table_of(project, "optional-dependencies").items():
        for text in _texts(needs):
            place = line("optional-dependencies", extra, text=text)
            found.requirements.append((text, extra, place))
    for key in ("readme", "license"):
        said = project.get(key)
        inside = said.get("file") if isinstance(said, dict) else said if key == "readme" else None
        files = _texts([inside]) + (_texts(project.get("license-files")) if key != "readme" else [])
        plain = [name for name in files if not any(c in name for c in "*?[")]
        where = line(key if key == "readme" else "license-files")
        found.missing[key] = [(n, where) for n in plain if not is_file(plugin.root / n)]
        found.has[key] = bool(said) or key in found.dynamic
    found.has["license"] |= _names_license(_texts(project.get("classifiers")))
    return found


def _names_license(classifiers: Iterable[str]) -> bool:
    return any(text.startswith("License ::") for text in classifiers)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _read_wheel(root: Path, info: Path) -> Plugin:
    plugin = Plugin(root, is_wheel=True, config=Place(f"{info.name}/METADATA"))
    try:
        plugin.text = read_text(info / "METADATA")
    except UnreadableError as error:
        plugin.problems.append(Finding(plugin.config, f"the file {error}"))
    message = email.parser.HeaderParser().parsestr(plugin.text)
    found = Metadata(plugin.config, message["Name"], requires_python=message["Requires-Python"])
    found.python_place = plugin.config
    body = message.get_payload()
    found.has["readme"] = bool(str(body).strip() or message["Description"])
    classifiers = map(str, message.get_all("Classifier") or [])
    licensed = message["License-Expression"] or message["License"] or _names_license(classifiers)
    found.has["license"] = bool(licensed)
    for text in map(str, message.get_all("Requires-Dist") or []):
        extra = re.search(r"""extra\s*==\s*["']([^"']+)["']""", text)
        found.requirements.append((text, extra[1] if extra else "", plugin.config))
    plugin.metadata = found
    if is_file(info / "entry_points.txt"):
        _read_entry_points_txt(plugin, info / "entry_points.txt", f"{info.name}/entry_points.txt")
    return plugin


def _read_entry_points_txt(plugin: Plugin, path: Path, name: str) -> None:
    parser = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # configparser's own way
    try:
        text = read_text(path)
        parser.read_string(text)
    except (UnreadableError, configparser.Error) as error:
        plugin.problems.append(Finding(Place(name), f"the file can't be read: {error}"))
        return
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        lines.setdefault(re.split("=", line)[0].strip(), number)
    for group in parser.sections():
        plugin.groups[group] = Place(name, lines.get(f"[{group}]", 0))
        for key, value in parser[group].items():
            place = Place(name, lines.get(key, 0))
            plugin.entry_points.append(EntryPoint(group, key, value, place))


def _read_package(plugin: Plugin) -> None:
    """Find the packages that the entry points name, else the one named after the project."""
    wanted = [entry.module.partition(".")[0] for entry in plugin.entry_points]
    for name in dict.fromkeys(wanted):
        if name.isidentifier() and name != "exo":
            _add_package(plugin, name)
    if not plugin.package.modules and plugin.metadata.name:
        _add_package(plugin, re.sub(r"[-.]+", "_", plugin.metadata.name).lower())


def _folders(plugin: Plugin) -> Iterator[tuple[str, Path]]:
    """Where packages may lie, whatever the build tool is told: the root, src, then any folder."""
    pending = [("", plugin.root)]
    for where, folder in itertools.islice(pending, MAX_FOLDERS):  # it grows
        yield where, folder
        if plugin.is_wheel or where.count("/") == 2:
            continue
        inside = [path for path in names(folder) if path.name not in _NO_PACKAGES]
        for path in sorted(inside, key=lambda path: path.name not in {"src", "lib", "python"}):
            hidden = path.name.startswith(".") or is_file(path / "__init__.py")
            if not hidden and is_folder(path):
                pending.append((f"{where}/{path.name}" if where else path.name, path))


def _add_package(plugin: Plugin, name: str) -> None:
    for where, folder in _folders(plugin):
        prefix = f"{where}/{name}" if where else name
        if is_folder(folder / name):
            plugin.bases[name] = where
            for path, file in sorted(python_files(folder / name, prefix)):
                inside = path[len(where) + 1 if where else 0 :].removesuffix(".py")
                _add_module(plugin, inside.replace("/", ".").removesuffix(".__init__"), path, file)
            return
        if is_file(folder / f"{name}.py"):
            plugin.bases[name] = where
            _add_module(plugin, name, f"{prefix}.py", folder / f"{name}.py")
            return


def _add_module(plugin: Plugin, dotted: str, path: str, file: Path) -> None:
    try:
        plugin.package.add(dotted, path, read_text(file))
    except UnreadableError as error:
        plugin.package.add(dotted, path, error)
