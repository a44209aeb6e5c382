"""The fixture that every static check gets: a plugin's metadata and source."""

import ast
import functools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import host
from .files import is_file, names, words
from .findings import Finding, Place
from .source import Class, Module, Package
from .tables import lines_of, table_of, tables_of

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
    requires_python: str | None = None
    python_place: Place = field(default_factory=Place)
    has: dict[str, bool] = field(default_factory=dict)  # a readme, a license
    missing: dict[str, list[tuple[str, Place]]] = field(default_factory=dict)  # named, not there
    dynamic: frozenset[str] = frozenset()


@dataclass(eq=False)
class Plugin:
    """Everything that a static check looks at. It is read once and never changed."""

    root: Path
    is_wheel: bool = False
    config: Place = field(default_factory=lambda: Place("pyproject.toml"))
    text: str = ""
    pyproject: dict[str, Any] = field(default_factory=dict)
    metadata: Metadata = field(default_factory=lambda: Metadata(Place("pyproject.toml")))
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
        return named or any(i.top == "exo" for module in self.package for i in module.imports)

    def in_group(self, group: str) -> list[EntryPoint]:
        return [entry for entry in self.entry_points if entry.group == group]

    @functools.cached_property
    def _lines(self) -> dict[tuple[str, ...], int]:
        return lines_of(self.text)

    @functools.cached_property
    def _split(self) -> list[str]:
        return self.text.splitlines()

    def line(self, *path: str, text: str = "") -> Place:
        """Where a key of pyproject.toml is, or most of it; with `text`, the line that holds it."""
        known = (path[:n] for n in range(len(path), 0, -1))
        line = next((self._lines[part] for part in known if part in self._lines), 0)
        if text:
            lines = range(max(line, 1), len(self._split) + 1)
            line = next((n for n in lines if text in self._split[n - 1]), line)
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
            or is_file(self.root.joinpath("setup.py"))
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
            or is_file(self.root.joinpath("setup.cfg"))
            or any(table.get(key) for table in lists for key in ("force-include", "sources"))
            or any("to" in table for table in tables_of(table_of(tool, "poetry").get("packages")))
        )

    def may_be_built(self, module: str) -> bool:
        """Whether a module without a Python source may be there all the same.

        The build makes it (C, Rust, a version), or another distribution has it in a namespace.
        """
        top, _, below = module.rpartition(".")[0].partition(".")
        name = module.rpartition(".")[2]
        if not self.is_wheel and (
            name in {"_version", "version", "__version__"}
            or self.build_adds_modules
            or (module.partition(".")[0] not in self.bases and self.build_moves_folders)
        ):
            return True
        parts = module.split(".")
        around = (".".join(parts[:count]) for count in range(1, len(parts)))
        if parts[0] in self.bases and not any(part in self.package.modules for part in around):
            return True  # a namespace, to which anyone may add
        inside = [*self.bases.get(top, "").split("/"), top, *below.split(".")]
        folder = self.root.joinpath(*filter(None, inside))
        found = [path.name for path in names(folder) if path.name.startswith(f"{name}.")]
        return any(not path.endswith((".py", ".pyi")) for path in found)

    def target(self, entry: EntryPoint) -> tuple[Module, ast.stmt] | str | None:
        """What an entry point leads to; a text: it is made elsewhere; None: it is not there."""
        module = self.package.modules.get(entry.module) if entry.is_well_formed else None
        return self.package.find(module, entry.attribute) if module else None

    def class_of(self, entry: EntryPoint) -> Class | None:
        found = self.target(entry)
        if isinstance(found, tuple) and isinstance(found[1], ast.ClassDef):
            return Class(self.package, found[0], found[1])
        return None

    @functools.cached_property
    def engines(self) -> list[Class]:
        """The engines' classes that can be found, each once."""
        found: dict[int, Class] = {}
        for entry in self.in_group(host.GROUP_ENGINES):
            if (engine := self.class_of(entry)) is not None:
                found.setdefault(id(engine.node), engine)
        return list(found.values())
