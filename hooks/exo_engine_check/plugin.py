"""The fixture that every check gets: a plugin's metadata and source."""

import ast
import functools
import re
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from typing import Any

from . import host
from .files import is_file, names, words
from .findings import Finding, Place
from .source import Class, Module, Package
from .tables import Ini, line_of, table_of, tables_of

_BARE_SETUP = re.compile(r"\bsetup\s*\(\s*\)")
_PURE_BACKENDS = words("flit flit_core hatchling pdm poetry setuptools uv_build")


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

    place: Place
    name: str | None = None
    requirements: list[tuple[str, str, Place]] = field(default_factory=list)  # text, extra, where
    readme: bool = False
    license: bool = False
    requires_python: str | None = None
    python_place: Place = field(default_factory=Place)
    missing_readmes: list[tuple[str, Place]] = field(default_factory=list)
    missing_licenses: list[tuple[str, Place]] = field(default_factory=list)
    dynamic: frozenset[str] = frozenset()


@dataclass(eq=False)
class Plugin:
    """Everything that a static check looks at. It is read once and never changed."""

    root: Traversable
    is_wheel: bool = False
    config: Place = field(default_factory=lambda: Place("pyproject.toml"))
    text: str = ""
    pyproject: dict[str, Any] = field(default_factory=dict)
    setup_py: str = ""
    setup_cfg: "Ini" = field(default_factory=lambda: Ini("setup.cfg"))
    metadata: Metadata = field(default_factory=lambda: Metadata(Place("pyproject.toml")))
    entry_points: list[EntryPoint] = field(default_factory=list)
    entry_points_table: tuple[str, ...] = ()  # of pyproject.toml; empty: they are elsewhere
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

    @functools.cached_property
    def backend(self) -> str:
        """The module of the build backend; setuptools where none is named."""
        named = table_of(self.pyproject, "build-system").get("build-backend")
        return re.split(r"[.:]", named)[0] if isinstance(named, str) else "setuptools"

    @functools.cached_property
    def build_adds_modules(self) -> bool:
        """Whether the build compiles something, or runs code of the project's own."""
        tool = table_of(self.pyproject, "tool")
        hatch = table_of(tool, "hatch", "build")
        hooks = table_of(hatch, "hooks") | table_of(hatch, "targets", "wheel", "hooks")
        return bool(
            self.backend not in _PURE_BACKENDS
            or (self.setup_py and not _BARE_SETUP.search(self.setup_py))
            or table_of(tool, "setuptools").get("ext-modules")
            or table_of(tool, "poetry").get("build")
            or is_file(self.root.joinpath("pdm_build.py"))
            or hooks.keys() - {"vcs", "version"}
        )

    @functools.cached_property
    def build_moves_folders(self) -> bool:
        """Whether a package may lie in a folder of another name."""
        tool = table_of(self.pyproject, "tool")
        hatch = table_of(tool, "hatch", "build")
        lists = (hatch, table_of(hatch, "targets", "wheel"))
        return bool(
            any(table_of(tool, "setuptools", "package-dir"))
            or re.search(r"^\s*\w", self.setup_cfg.get("options", "package_dir"), re.MULTILINE)
            or any(table.get(key) for table in lists for key in ("force-include", "sources"))
            or any("to" in table for table in tables_of(table_of(tool, "poetry").get("packages")))
        )

    def may_be_built(self, module: str) -> bool:
        """Whether a module without a Python source may be there all the same.

        The build makes it (C, Rust, a version), or another distribution has it in a namespace.
        """
        parent, _, name = module.rpartition(".")
        top, _, below = parent.partition(".")
        if not self.is_wheel and (
            name in {"_version", "version", "__version__"}
            or self.build_adds_modules
            or (module.partition(".")[0] not in self.bases and self.build_moves_folders)
        ):
            return True
        if self._is_shared(module):
            return True
        parts = [*self.bases.get(top, "").split("/"), top, *below.split(".")]
        folder = self.root.joinpath(*filter(None, parts))
        found = [path.name for path in names(folder) if path.name.startswith(f"{name}.")]
        return any(not path.endswith((".py", ".pyi")) for path in found)

    def _is_shared(self, module: str) -> bool:
        """Whether no package around a module has an `__init__.py`, so that anyone may add to it."""
        parts = module.split(".")
        around = (".".join(parts[:count]) for count in range(1, len(parts)))
        return parts[0] in self.bases and not any(name in self.package.modules for name in around)

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

    def class_name(self, entry: EntryPoint) -> str | None:
        """What `__class__.__name__` of an engine is; None where the source doesn't tell."""
        target = self.target(entry)
        if target.class_ is not None:
            return target.class_.node.name
        module, name = target.module, entry.attribute
        is_plain = entry.is_well_formed and (module is None or self.package.lacks(module, name))
        return name if is_plain else None

    @functools.cached_property
    def engine_names(self) -> set[str]:
        """Names of the engines' classes; empty where one of them can't be told."""
        found = {self.class_name(entry) for entry in self.in_group(host.GROUP_ENGINES)}
        return {name for name in found if name is not None} if None not in found else set()

    @functools.cached_property
    def unseen(self) -> list[str]:
        """Entry points that no check could follow and none calls a fault: a sentence for each."""
        ours = [e for e in self.entry_points if e.group in host.GROUPS and e.is_well_formed]
        return [
            f"{entry} was not looked at: {entry.value} is made as the package is built or runs"
            for entry in ours
            if self._is_unseen(entry)
        ]

    def _is_unseen(self, entry: EntryPoint) -> bool:
        target = self.target(entry)
        if target.module is None:
            return self.may_be_built(entry.module)
        _ = target.module.tree
        if target.module.problem or self.package.lacks(target.module, entry.attribute):
            return False
        if entry.group != host.GROUP_ENGINES or target.definition is None:
            return target.definition is None
        function = isinstance(target.definition.node, ast.FunctionDef | ast.AsyncFunctionDef)
        return target.class_ is None and not function

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
        if self.definition is None or not isinstance(self.definition.node, ast.ClassDef):
            return None
        return Class.read(self._package, self.definition.module, self.definition.node)
