"""Reading a plugin from a tree or a wheel, in each of the forms that metadata has."""

import configparser
import contextlib
import email.parser
import itertools
import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib.resources.abc import Traversable
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
    reason,
    words,
)
from .findings import Finding, Place
from .plugin import EntryPoint, Metadata, Plugin
from .tables import Ini, table_of

_BARE_SETUP = re.compile(r"\bsetup\s*\(\s*\)")
_BUILD = "build the wheel and check it: exo-engine check dist/*.whl"
MAX_FOLDERS = 2_000


def read_plugin(root: Traversable) -> Plugin:
    """Read a project's folder or an opened wheel. Raises CannotRunError."""
    info = next((path for path in names(root) if path.name.endswith(".dist-info")), None)
    if is_file(root.joinpath("pyproject.toml")):
        plugin = _read_tree(root)
    elif info is not None:
        plugin = _read_wheel(root, info)
    elif any(is_file(root.joinpath(name)) for name in ("setup.py", "setup.cfg")):
        raise CannotRunError(f"there is no pyproject.toml; {_BUILD}")
    else:
        raise CannotRunError("there is neither a pyproject.toml nor a wheel's .dist-info here")
    _read_package(plugin)
    return plugin


def _read_tree(root: Traversable) -> Plugin:
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
    plugin.metadata = _metadata_of_tree(plugin)
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
    static = project or table_of(plugin.pyproject, "tool", "poetry") or _has_setup_cfg(plugin)
    if not static and (plugin.setup_py or "build-system" in plugin.pyproject):
        raise CannotRunError(f"pyproject.toml has no [project]; {_BUILD}")
    dynamic = "entry-points" in plugin.metadata.dynamic
    known = any(group.startswith("exo") for group in plugin.groups)
    in_setup_py = "entry_points" in plugin.setup_py and (dynamic or not project)
    if in_setup_py or (not known and (dynamic or plugin.setup_cfg.get("options", "entry_points"))):
        raise CannotRunError(f"only the build knows the entry points; {_BUILD}")


def _has_setup_cfg(plugin: Plugin) -> bool:
    return bool(plugin.setup_cfg.get("metadata", "name"))


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


def _metadata_of_tree(plugin: Plugin) -> Metadata:
    project = table_of(plugin.pyproject, "project")
    poetry = table_of(plugin.pyproject, "tool", "poetry")
    if not project and not poetry and _has_setup_cfg(plugin):
        return _metadata_of_setup_cfg(plugin)
    path = ("tool", "poetry") if poetry and not project else ("project",)
    said = poetry | project
    found = Metadata(plugin.line(*path), _text(said.get("name")))
    found.dynamic = frozenset(_texts(said.get("dynamic")))
    found.requires_python = _text(said.get("requires-python"))
    found.python_place = plugin.line(*path, "requires-python")
    for text in _texts(project.get("dependencies")):
        found.requirements.append((text, "", plugin.line("project", "dependencies", text=text)))
    for extra, needs in table_of(project, "optional-dependencies").items():
        for text in _texts(needs):
            place = plugin.line("project", "optional-dependencies", extra, text=text)
            found.requirements.append((text, extra, place))
    if not project or "dependencies" in found.dynamic:
        _read_poetry_dependencies(plugin, found, poetry)
    readme = said.get("readme")
    named = readme.get("file") if isinstance(readme, dict) else readme
    files = [named] if isinstance(named, str) else _texts(named)
    inline = isinstance(readme, dict) and readme.get("text")
    found.readme = bool(files or inline or "readme" in found.dynamic)
    found.missing_readmes = _absent(plugin, files, plugin.line(*path, "readme"))
    license_ = said.get("license")
    named = license_.get("file") if isinstance(license_, dict) else None
    files = [*_texts(said.get("license-files")), *_texts([named])]
    found.license = bool(license_ or _names_license(_texts(said.get("classifiers"))))
    found.license |= "license" in found.dynamic
    found.missing_licenses = _absent(plugin, files, plugin.line(*path, "license-files"))
    return found


def _names_license(classifiers: Iterable[str]) -> bool:
    return any(text.startswith("License ::") for text in classifiers)


def _absent(plugin: Plugin, files: list[str], place: Place) -> list[tuple[str, Place]]:
    """Files that are named and not here; patterns are the build's."""
    plain = [name for name in files if not any(c in name for c in "*?[")]
    return [(name, place) for name in plain if not is_file(plugin.root.joinpath(name))]


def _read_poetry_dependencies(plugin: Plugin, found: Metadata, poetry: dict[str, Any]) -> None:
    path = ("tool", "poetry", "dependencies")
    extras = table_of(poetry, "extras")
    for name, told in table_of(poetry, "dependencies").items():
        place = plugin.line(*path, name)
        specifier = _specifier(told)
        if name != "python":
            optional = isinstance(told, dict) and told.get("optional")
            extra = next((key for key in extras if name in _texts(extras[key])), "optional")
            text = f"{name}{specifier or ''}"
            found.requirements.append((text, extra if optional else "", place))
        elif not found.requires_python:
            found.requires_python, found.python_place = specifier, place
            if specifier is None:
                found.dynamic |= {"requires-python"}


def _specifier(told: Any) -> str | None:
    """A dependency of Poetry's as pip spells it; None: it admits what can't be told."""
    if isinstance(told, dict):
        source = next((told[key] for key in ("git", "url", "path", "file") if key in told), None)
        if source is not None:
            return f" @ {source}"
        told = None if told.keys() & {"markers", "platform", "python"} else told.get("version")
    if not isinstance(told, str) or "|" in told:
        return None
    clauses = re.split(r"[\s,]+", re.sub(r"(?<=[<>=!~^])\s+", "", told.strip()))
    return ",".join(filter(None, map(_clause, clauses)))


_CLAUSE = re.compile(r"(\^|~(?!=)|)v?(\d+(?:\.\d+)*)(.*)")


def _clause(text: str) -> str:
    match = _CLAUSE.fullmatch(text)
    if match is None:
        return text.strip("*") and text
    operator, version, rest = match.groups()
    if not operator:
        return f"=={version}{rest}"
    numbers = [int(part) for part in version.split(".")]
    last = min(len(numbers), 2) - 1
    if operator == "^":
        last = next((n for n, number in enumerate(numbers) if number), len(numbers) - 1)
    upper = ".".join(map(str, [*numbers[:last], numbers[last] + 1]))
    return f">={version}{rest.removesuffix('.*')},<{upper}"


def _metadata_of_setup_cfg(plugin: Plugin) -> Metadata:
    cfg = plugin.setup_cfg
    found = Metadata(cfg.place("[metadata]"), cfg.get("metadata", "name"))
    if plugin.setup_py and not _BARE_SETUP.search(plugin.setup_py):
        found.dynamic = words("dependencies license readme requires-python")
    found.requires_python = cfg.get("options", "python_requires")
    found.python_place = cfg.place("python_requires")
    extras = cfg.sections.get("options.extras_require", {})
    for extra, needs in {"": cfg.get("options", "install_requires"), **extras}.items():
        below = extra or "install_requires"
        if needs.startswith("file:"):
            found.dynamic |= {"dependencies"}
            continue
        for text in _items(needs, ";"):
            found.requirements.append((text, extra, cfg.place(text, below)))
    readme = cfg.get("metadata", "long_description")
    files = _items(readme.removeprefix("file:")) if readme.startswith("file:") else []
    found.readme = bool(readme) or "readme" in found.dynamic
    found.missing_readmes = _absent(plugin, files, cfg.place("long_description"))
    classifiers = cfg.get("metadata", "classifiers")
    named = _names_license(_items(classifiers)) or classifiers.startswith("file:")
    found.license = bool(cfg.get("metadata", "license") or named or "license" in found.dynamic)
    files = _items(cfg.get("metadata", "license_files") or cfg.get("metadata", "license_file"))
    found.missing_licenses = _absent(plugin, files, cfg.place("license"))
    return found


def _items(value: str, separator: str = ",") -> list[str]:
    """A list of setup.cfg: one item a line, or all on one."""
    items = value.splitlines() if "\n" in value else value.split(separator)
    return [item.strip() for item in items if item.strip() and not item.strip().startswith("#")]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _read_wheel(root: Traversable, info: Traversable) -> Plugin:
    plugin = Plugin(root, is_wheel=True, config=Place(f"{info.name}/METADATA"))
    try:
        plugin.text = read_text(info.joinpath("METADATA"))
    except UnreadableError as error:
        plugin.problems.append(Finding(plugin.config, f"the file {error}"))
    message = email.parser.HeaderParser().parsestr(plugin.text)
    found = Metadata(plugin.config, message["Name"], requires_python=message["Requires-Python"])
    found.python_place = plugin.config
    body = message.get_payload()
    found.readme = bool((isinstance(body, str) and body.strip()) or message["Description"])
    classifiers = message.get_all("Classifier") or []
    found.license = bool(
        message["License-Expression"] or message["License"] or _names_license(map(str, classifiers))
    )
    for text in map(str, message.get_all("Requires-Dist") or []):
        extra = re.search(r"""extra\s*==\s*["']([^"']+)["']""", text)
        place = Ini(plugin.config.path, plugin.text).place(f"Requires-Dist: {text}")
        found.requirements.append((text, extra[1] if extra else "", place))
    plugin.metadata = found
    path = info.joinpath("entry_points.txt")
    if is_file(path):
        _read_entry_points_txt(plugin, path, f"{info.name}/entry_points.txt")
    return plugin


def _read_entry_points_txt(plugin: Plugin, path: Traversable, name: str) -> None:
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


def _folders(plugin: Plugin) -> Iterator[tuple[str, Traversable]]:
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


def _add_files(plugin: Plugin, folder: Traversable, name: str, where: str) -> None:
    prefix = f"{where}/{name}" if where else name
    try:
        _ = next(iter(folder.iterdir()), None)
    except OSError as error:
        plugin.package.add(name, prefix, UnreadableError(f"can't be listed: {reason(error)}"))
    for path, file in sorted(python_files(folder, prefix), key=lambda pair: pair[0]):
        inside = path[len(where) + 1 if where else 0 :].removesuffix(".py")
        _add_module(plugin, inside.replace("/", ".").removesuffix(".__init__"), path, file)


def _add_module(plugin: Plugin, dotted: str, path: str, file: Traversable) -> None:
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
