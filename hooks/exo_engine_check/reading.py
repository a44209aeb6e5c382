"""Reading a plugin from a project's folder or an unpacked wheel."""

import configparser
import contextlib
import itertools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from .files import (
    SKIPPED,
    CannotRunError,
    UnreadableError,
    is_file,
    is_folder,
    names,
    python_files,
    read_text,
    reason,
    words,
)
from .findings import Finding, Place
from .metadata import metadata_of_tree, metadata_of_wheel
from .plugin import EntryPoint, Plugin
from .tables import Ini, table_of

_BUILD = "build the wheel and check it: exo-engine check dist/*.whl"
MAX_FOLDERS = 2_000


def read_plugin(root: Path) -> Plugin:
    """Read a project's folder or an opened wheel. Raises CannotRunError."""
    info = next((path for path in names(root) if path.name.endswith(".dist-info")), None)
    if is_file(root.joinpath("pyproject.toml")):
        plugin = _read_tree(root)
    elif info is not None:
        plugin = metadata_of_wheel(root, info)
        path = info.joinpath("entry_points.txt")
        if is_file(path):
            _read_entry_points_txt(plugin, path, f"{info.name}/entry_points.txt")
    elif any(is_file(root.joinpath(name)) for name in ("setup.py", "setup.cfg")):
        raise CannotRunError(f"there is no pyproject.toml; {_BUILD}")
    else:
        raise CannotRunError("there is neither a pyproject.toml nor a wheel's .dist-info here")
    _read_package(plugin)
    return plugin


def _read_tree(root: Path) -> Plugin:
    plugin = Plugin(root)
    path = root.joinpath("pyproject.toml")
    try:
        plugin.text = read_text(path)
        plugin.pyproject = tomllib.loads(plugin.text)
    except UnreadableError as error:
        plugin.problems.append(Finding(plugin.config, f"the file {error}"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        number = re.search(r"line (\d+)", str(error))
        place = Place(plugin.config.path, int(number[1]) if number else 0)
        plugin.problems.append(Finding(place, f"this is no TOML: {error}"))
    if plugin.backend == "setuptools":
        _read_setup_files(plugin)
    _read_entry_points(plugin)
    plugin.metadata = metadata_of_tree(plugin)
    if not plugin.problems:
        _refuse_what_the_build_says(plugin)
    return plugin


def _read_setup_files(plugin: Plugin) -> None:
    """setuptools' older files; whoever can't read them is told by the build."""
    with contextlib.suppress(UnreadableError):
        plugin.setup_py = read_text(plugin.root.joinpath("setup.py"))
    with contextlib.suppress(UnreadableError, configparser.Error):
        plugin.setup_cfg = Ini.read("setup.cfg", read_text(plugin.root.joinpath("setup.cfg")))


def _refuse_what_the_build_says(plugin: Plugin) -> None:
    """Metadata that code of the project's own makes is not guessed. Raises CannotRunError."""
    project = "project" in plugin.pyproject
    poetry = table_of(plugin.pyproject, "tool", "poetry")
    static = project or poetry or plugin.setup_cfg.get("metadata", "name")
    if not static and (plugin.setup_py or "build-system" in plugin.pyproject):
        raise CannotRunError(f"pyproject.toml has no [project]; {_BUILD}")
    dynamic = "entry-points" in plugin.metadata.dynamic
    known = any(group.startswith("exo") for group in plugin.groups)
    in_setup_py = "entry_points" in plugin.setup_py and (dynamic or not project)
    if in_setup_py or (not known and (dynamic or plugin.setup_cfg.get("options", "entry_points"))):
        raise CannotRunError(f"only the build knows the entry points; {_BUILD}")


def _read_entry_points(plugin: Plugin) -> None:
    """Poetry passes over its own table where [project] has one; setup.cfg comes last."""
    paths: list[tuple[str, ...]] = [("project", "entry-points"), ("tool", "poetry", "plugins")]
    used = next((path for path in paths if table_of(plugin.pyproject, *path)), None)
    if used is None and (groups := plugin.setup_cfg.sections.get("options.entry_points")):
        _add_ini(plugin, plugin.setup_cfg, groups)
        return
    if used is None:
        used = next((path for path in paths if table_of(plugin.pyproject, *path[:-1])), ())
    plugin.entry_points_table = used
    for group, entries in table_of(plugin.pyproject, *used).items() if used else ():
        plugin.groups[group] = plugin.line(*used, group)
        for name, value in entries.items() if isinstance(entries, dict) else ():
            place = plugin.line(*used, group, name)
            if isinstance(value, dict):
                message = f'the group has to be in quotes: [{".".join(used)}."{group}.{name}"]'
                plugin.problems.append(Finding(place, message))
                continue
            plugin.entry_points.append(EntryPoint(group, name, str(value), place))


def _add_ini(plugin: Plugin, ini: Ini, groups: dict[str, str]) -> None:
    for group, entries in groups.items():
        plugin.groups[group] = ini.place(group, "[options.entry_points]")
        for line in filter(None, map(str.strip, entries.splitlines())):
            name, _, value = line.partition("=")
            place = ini.place(line, "[options.entry_points]")
            plugin.entry_points.append(EntryPoint(group, name.strip(), value.strip(), place))


def _read_entry_points_txt(plugin: Plugin, path: Path, name: str) -> None:
    try:
        ini = Ini.read(name, read_text(path), delimiters=("=",))
    except (UnreadableError, configparser.Error) as error:
        plugin.problems.append(Finding(Place(name), f"the file can't be read: {error}"))
        return
    lines = ((s, (f"{k} = {v}" for k, v in keys.items())) for s, keys in ini.sections.items())
    _add_ini(plugin, ini, {section: "\n".join(entries) for section, entries in lines})


def _read_package(plugin: Plugin) -> None:
    """Find the packages that the entry points name, else the one named after the project."""
    wanted = [entry.module.partition(".")[0] for entry in plugin.entry_points]
    wanted = [name for name in dict.fromkeys(wanted) if name.isidentifier() and name != "exo"]
    for name in wanted:
        _add_package(plugin, name)
    if not plugin.package.modules:
        for name in _guesses(plugin):
            _add_package(plugin, name)
            if plugin.package.modules:
                return


_NO_PACKAGES = SKIPPED | words("doc docs example examples exo scripts test tests")


def _folders(plugin: Plugin) -> Iterator[tuple[str, Path]]:
    """Where packages may lie, whatever the build tool is told: the root, src, then any folder."""
    pending = [("", plugin.root)]
    for where, folder in itertools.islice(pending, MAX_FOLDERS):  # it grows
        yield where, folder
        if plugin.is_wheel or where.count("/") == 2:
            continue
        inside = [path for path in names(folder) if path.name not in _NO_PACKAGES]
        for path in sorted(inside, key=lambda path: path.name not in {"src", "lib", "python"}):
            hidden = path.name.startswith(".") or is_file(path.joinpath("__init__.py"))
            if not hidden and is_folder(path):
                pending.append((f"{where}/{path.name}" if where else path.name, path))


def _add_package(plugin: Plugin, name: str) -> None:
    for where, folder in _folders(plugin):
        if is_folder(found := folder.joinpath(name)):
            plugin.bases[name] = where
            _add_files(plugin, found, name, where)
            return
    for where, folder in _folders(plugin):
        if is_file(found := folder.joinpath(f"{name}.py")):
            plugin.bases[name] = where
            _add_module(plugin, name, f"{where}/{name}.py".lstrip("/"), found)
            return


def _add_files(plugin: Plugin, folder: Path, name: str, where: str) -> None:
    prefix = f"{where}/{name}" if where else name
    try:
        _ = next(iter(folder.iterdir()), None)
    except OSError as error:
        plugin.package.add(name, prefix, UnreadableError(f"can't be listed: {reason(error)}"))
    for path, file in sorted(python_files(folder, prefix), key=lambda pair: pair[0]):
        inside = path[len(where) + 1 if where else 0 :].removesuffix(".py")
        _add_module(plugin, inside.replace("/", ".").removesuffix(".__init__"), path, file)


def _add_module(plugin: Plugin, dotted: str, path: str, file: Path) -> None:
    try:
        plugin.package.add(dotted, path, read_text(file))
    except UnreadableError as error:
        plugin.package.add(dotted, path, error)


def _guesses(plugin: Plugin) -> Iterator[str]:
    if plugin.metadata.name:
        yield re.sub(r"[-.]+", "_", plugin.metadata.name).lower()
    for folder in (plugin.root, plugin.root.joinpath("src")):
        for path in names(folder):
            if path.name not in _NO_PACKAGES and is_file(path.joinpath("__init__.py")):
                yield path.name
