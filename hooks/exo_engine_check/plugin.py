"""The fixture that every check gets: a plugin's metadata and source, from a tree or a wheel."""

import configparser
import email.parser
import functools
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from typing import Any

from . import host
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
)
from .findings import Finding, Place
from .source import Class, Module, Package

_HEADER = re.compile(r"^\s*\[\[?\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(
    r"""^\s*((?:"[^"]*"|'[^']*'|[\w-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[\w-]+))*)\s*="""
)
_PART = re.compile(r""""([^"]*)"|'([^']*)'|([^.\s]+)""")


@dataclass(frozen=True)
class EntryPoint:
    """One line of an entry point group."""

    group: str
    name: str
    value: str
    place: Place

    @property
    def module(self) -> str:
        return self.value.rpartition(":")[0].strip()

    @property
    def attribute(self) -> str:
        return self.value.rpartition(":")[2].strip()

    @property
    def is_well_formed(self) -> bool:
        parts = [*self.module.split("."), self.attribute]
        return ":" in self.value and all(part.isidentifier() for part in parts)

    def __str__(self) -> str:
        return f"{self.name} of {self.group}"


@dataclass
class Metadata:
    """What the distribution says of itself; None: it says nothing."""

    name: str | None = None
    requirements: list[tuple[str, str, Place]] = field(default_factory=list)  # text, extra, where
    readme: bool = False
    license: bool = False
    requires_python: str | None = None
    missing_files: list[tuple[str, Place]] = field(default_factory=list)
    dynamic: frozenset[str] = frozenset()


@dataclass(eq=False)
class Plugin:
    """Everything that a static check looks at. It is read once and never changed."""

    root: Traversable
    is_wheel: bool = False
    config: Place = field(default_factory=lambda: Place("pyproject.toml"))
    text: str = ""
    pyproject: dict[str, Any] = field(default_factory=dict)
    metadata: Metadata = field(default_factory=Metadata)
    entry_points: list[EntryPoint] = field(default_factory=list)
    groups: dict[str, Place] = field(default_factory=dict)
    package: Package = field(default_factory=Package)
    bases: dict[str, str] = field(default_factory=dict)  # top package: the folder that holds it
    problems: list[Finding] = field(default_factory=list)

    def __deepcopy__(self, memo: object) -> "Plugin":
        """repo-review copies fixtures for every run; this one is never changed."""
        return self

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """`[tool.exo-engine]`."""
        return table_of(self.pyproject, "tool", "exo-engine")

    @functools.cached_property
    def concerns_exo(self) -> bool:
        """Whether the project has to do with exo at all: plain repo-review runs on any project."""
        named = any(group.startswith("exo") for group in self.groups)
        return named or any(
            found.top == "exo" for module in self.package for found in module.all_imports
        )

    def in_group(self, group: str) -> list[EntryPoint]:
        return [entry for entry in self.entry_points if entry.group == group]

    def line(self, *path: str, text: str = "") -> Place:
        """Where a key of pyproject.toml is; with `text`, the line that holds it from there on."""
        line = line_of(self.text, path)
        if text:
            lines = self.text.splitlines()
            for number in range(max(line, 1), len(lines) + 1):
                if text in lines[number - 1]:
                    line = number
                    break
        return Place(self.config.path, line)

    def may_be_built(self, module: str) -> bool:
        """Whether a module without a Python source may come from the build: C, Rust, a version."""
        parent, _, name = module.rpartition(".")
        if name in {"_version", "version", "__version__"} and not self.is_wheel:
            return True
        top, _, below = parent.partition(".")
        parts = [*self.bases.get(top, "").split("/"), top, *below.split(".")]
        folder = self.root.joinpath(*filter(None, parts))
        found = [path.name for path in names(folder) if path.name.startswith(f"{name}.")]
        return any(not path.endswith((".py", ".pyi")) for path in found)

    def target(self, entry: EntryPoint) -> "Target":
        """What an entry point leads to."""
        return Target(self, entry)

    @functools.cached_property
    def engines(self) -> list[Class]:
        """The engines' classes that can be found."""
        found: list[Class] = []
        for entry in self.in_group(host.GROUP_ENGINES):
            node = self.target(entry)
            if isinstance(node.class_, Class) and not any(
                node.class_.node is known.node for known in found
            ):
                found.append(node.class_)
        return found

    @functools.cached_property
    def engine_names(self) -> set[str]:
        """Names of the engines' classes, as entry points spell them."""
        return {entry.attribute for entry in self.in_group(host.GROUP_ENGINES)}

    @functools.cached_property
    def discovered(self) -> list[Module]:
        """The modules that exo's discovery imports, and what those import of the package."""
        groups = (host.GROUP_MODELS, host.GROUP_DETECTORS)
        entries = [entry for group in groups for entry in self.in_group(group)]
        return self.package.loaded_with([entry.module for entry in entries])


class Target:
    """The module and the definition that an entry point names."""

    def __init__(self, plugin: Plugin, entry: EntryPoint) -> None:
        self.entry = entry
        self.module = plugin.package.modules.get(entry.module) if entry.is_well_formed else None
        self.definition = plugin.package.find(self.module, entry.attribute) if self.module else None
        self._package = plugin.package

    @functools.cached_property
    def class_(self) -> Class | None:
        import ast

        if self.definition is None or not isinstance(self.definition.node, ast.ClassDef):
            return None
        return Class.read(self._package, self.definition.module, self.definition.node)


def line_of(text: str, path: tuple[str, ...]) -> int:
    """The first line that defines most of a dotted path of TOML; 0 where nothing of it is there."""
    best, best_length = 0, 0
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = _parts(header[1])
            found = table
        elif key := _KEY.match(line):
            found = (*table, *_parts(key[1]))
        else:
            continue
        if found == path[: len(found)] and len(found) > best_length:
            best, best_length = number, len(found)
    return best


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple("".join(groups) for groups in _PART.findall(dotted))


def table_of(data: Any, *keys: str) -> dict[str, Any]:
    """A table inside a table; empty where there is none."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def read_plugin(root: Traversable) -> Plugin:
    """Read a project's folder or an opened wheel. Raises CannotRunError."""
    info = next((path for path in names(root) if path.name.endswith(".dist-info")), None)
    if is_file(root.joinpath("pyproject.toml")):
        plugin = _read_tree(root)
    elif info is not None:
        plugin = _read_wheel(root, info)
    elif any(is_file(root.joinpath(name)) for name in ("setup.py", "setup.cfg")):
        raise CannotRunError(
            "there is no pyproject.toml; build the wheel and check it: exo-engine check dist/*.whl"
        )
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
    _read_entry_points(plugin)
    plugin.metadata = _metadata_of_tree(plugin)
    return plugin


def _read_entry_points(plugin: Plugin) -> None:
    project = table_of(plugin.pyproject, "project")
    tables = [
        (("project", "entry-points"), table_of(project, "entry-points")),
        (("tool", "poetry", "plugins"), table_of(plugin.pyproject, "tool", "poetry", "plugins")),
    ]
    for path, table in tables:
        for group, entries in table.items():
            plugin.groups[group] = plugin.line(*path, group)
            for name, value in entries.items() if isinstance(entries, dict) else ():
                place = plugin.line(*path, group, name)
                if isinstance(value, dict):
                    message = f'the group has to be in quotes: [{".".join(path)}."{group}.{name}"]'
                    plugin.problems.append(Finding(place, message))
                    continue
                plugin.entry_points.append(EntryPoint(group, name, str(value), place))
    if not plugin.groups and is_file(setup := plugin.root.joinpath("setup.cfg")):
        _read_setup_cfg(plugin, setup)


def _ini_parser() -> configparser.ConfigParser:
    """Names keep their case, as importlib.metadata reads them."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # configparser's own way
    return parser


def _read_setup_cfg(plugin: Plugin, path: Traversable) -> None:
    """setuptools' older way to spell entry points."""
    parser = _ini_parser()
    try:
        text = read_text(path)
        parser.read_string(text)
        groups = dict(parser["options.entry_points"])
    except (UnreadableError, configparser.Error, KeyError):
        return
    _add_ini(plugin, "setup.cfg", text, groups)


def _add_ini(plugin: Plugin, file: str, text: str, groups: dict[str, str]) -> None:
    for group, entries in groups.items():
        plugin.groups[group] = Place(file, _line_with(text, group))
        for line in filter(None, map(str.strip, entries.splitlines())):
            name, _, value = line.partition("=")
            place = Place(file, _line_with(text, line))
            plugin.entry_points.append(EntryPoint(group, name.strip(), value.strip(), place))


def _line_with(text: str, part: str) -> int:
    return next((n for n, line in enumerate(text.splitlines(), 1) if part in line), 0)


def _metadata_of_tree(plugin: Plugin) -> Metadata:
    project = table_of(plugin.pyproject, "project")
    poetry = table_of(plugin.pyproject, "tool", "poetry")
    found = Metadata(name=_text(project.get("name")) or _text(poetry.get("name")))
    dynamic = project.get("dynamic")
    found.dynamic = frozenset(map(str, dynamic)) if isinstance(dynamic, list) else frozenset()
    found.requires_python = _text(project.get("requires-python"))
    for text in _texts(project.get("dependencies")):
        found.requirements.append((text, "", plugin.line("project", "dependencies", text=text)))
    for extra, needs in table_of(project, "optional-dependencies").items():
        for text in _texts(needs):
            place = plugin.line("project", "optional-dependencies", extra, text=text)
            found.requirements.append((text, extra, place))
    if poetry and not project:
        dependencies = table_of(poetry, "dependencies")
        found.requires_python = _text(dependencies.pop("python", None))
        for name in dependencies:
            place = plugin.line("tool", "poetry", "dependencies", name)
            found.requirements.append((name, "", place))
    _read_readme(plugin, found, project.get("readme", poetry.get("readme")))
    _read_license(plugin, found, project, poetry)
    return found


def _read_readme(plugin: Plugin, found: Metadata, readme: Any) -> None:
    file = table_of({"r": readme}, "r").get("file") if isinstance(readme, dict) else readme
    if "readme" in found.dynamic or (isinstance(readme, dict) and readme.get("text")):
        found.readme = True
    elif isinstance(file, str):
        found.readme = True
        if not is_file(plugin.root.joinpath(file)):
            found.missing_files.append((file, plugin.line("project", "readme")))


def _read_license(
    plugin: Plugin, found: Metadata, project: dict[str, Any], poetry: dict[str, Any]
) -> None:
    license_ = project.get("license", poetry.get("license"))
    classifiers = [c for c in _texts(project.get("classifiers")) if c.startswith("License ::")]
    found.license = bool(license_ or classifiers or "license" in found.dynamic)
    file = license_.get("file") if isinstance(license_, dict) else None
    globs = _texts(project.get("license-files"))
    for name in [*globs, *([file] if isinstance(file, str) else [])]:
        if not any(c in name for c in "*?[") and not is_file(plugin.root.joinpath(name)):
            found.missing_files.append((name, plugin.line("project", "license-files")))


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
    found = Metadata(name=message["Name"], requires_python=message["Requires-Python"])
    body = message.get_payload()
    found.readme = bool((isinstance(body, str) and body.strip()) or message["Description"])
    classifiers = message.get_all("Classifier") or []
    found.license = bool(
        message["License-Expression"]
        or message["License"]
        or any(str(c).startswith("License ::") for c in classifiers)
    )
    for text in map(str, message.get_all("Requires-Dist") or []):
        extra = re.search(r"""extra\s*==\s*["']([^"']+)["']""", text)
        place = Place(plugin.config.path, _line_with(plugin.text, text))
        found.requirements.append((text, extra[1] if extra else "", place))
    plugin.metadata = found
    path = info.joinpath("entry_points.txt")
    if is_file(path):
        _read_entry_points_txt(plugin, path, f"{info.name}/entry_points.txt")
    return plugin


def _read_entry_points_txt(plugin: Plugin, path: Traversable, name: str) -> None:
    parser = _ini_parser()
    try:
        text = read_text(path)
        parser.read_string(text)
    except (UnreadableError, configparser.Error) as error:
        plugin.problems.append(Finding(Place(name), f"the file can't be read: {error}"))
        return
    groups = {s: "\n".join(f"{k} = {v}" for k, v in parser[s].items()) for s in parser.sections()}
    _add_ini(plugin, name, text, groups)


def _read_package(plugin: Plugin) -> None:
    """Find the packages that the entry points name, else the one named after the project."""
    wanted = [entry.module.partition(".")[0] for entry in plugin.entry_points]
    wanted = [name for name in dict.fromkeys(wanted) if name.isidentifier() and name != "exo"]
    folders = list(_folders(plugin))
    for name in wanted:
        _add_package(plugin, folders, name)
    if not plugin.package.modules:
        for name in _guesses(plugin, folders):
            _add_package(plugin, folders, name)
            if plugin.package.modules:
                return


def _folders(plugin: Plugin) -> Iterator[tuple[str, Traversable]]:
    """Where packages may lie: the root, src, and what the build tool is told."""
    yield "", plugin.root
    if plugin.is_wheel:
        return
    told = ["src", "lib", "python"]
    setuptools = table_of(plugin.pyproject, "tool", "setuptools")
    told += _texts(table_of(setuptools, "packages", "find").get("where"))
    told += [d for d in table_of(setuptools, "package-dir").values() if isinstance(d, str)]
    hatch = table_of(plugin.pyproject, "tool", "hatch", "build", "targets", "wheel")
    told += [p.rpartition("/")[0] for p in _texts(hatch.get("packages")) if "/" in p]
    for name in dict.fromkeys(told):
        parts = [part for part in name.split("/") if part not in {"", "."}]
        if parts and ".." not in parts:
            yield "/".join(parts), plugin.root.joinpath(*parts)


def _add_package(plugin: Plugin, folders: list[tuple[str, Traversable]], name: str) -> None:
    for where, folder in folders:
        prefix = f"{where}/{name}" if where else name
        if is_folder(found := folder.joinpath(name)):
            plugin.bases[name] = where
            try:
                _ = next(iter(found.iterdir()), None)
            except OSError as error:
                plugin.package.add(
                    name, prefix, UnreadableError(f"can't be listed: {reason(error)}")
                )
            for path, file in sorted(python_files(found, prefix), key=lambda pair: pair[0]):
                inside = path[len(where) + 1 if where else 0 :].removesuffix(".py")
                dotted = inside.replace("/", ".").removesuffix(".__init__")
                _add_module(plugin, dotted, path, file)
            return
        if is_file(found := folder.joinpath(f"{name}.py")):
            plugin.bases[name] = where
            _add_module(plugin, name, f"{prefix}.py", found)
            return


def _add_module(plugin: Plugin, dotted: str, path: str, file: Traversable) -> None:
    try:
        plugin.package.add(dotted, path, read_text(file))
    except UnreadableError as error:
        plugin.package.add(dotted, path, error)


def _guesses(plugin: Plugin, folders: list[tuple[str, Traversable]]) -> Iterator[str]:
    if plugin.metadata.name:
        yield re.sub(r"[-.]+", "_", plugin.metadata.name).lower()
    skipped = {*SKIPPED, "tests", "test", "docs", "doc", "examples", "scripts", "exo"}
    for _, folder in folders[:2]:
        for path in names(folder):
            if path.name not in skipped and is_file(path.joinpath("__init__.py")):
                yield path.name
