"""The fixture that every static check gets: a plugin's metadata and source."""

import ast
import bisect
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import host
from .files import is_file, words
from .report import Fault, Place
from .source import Class, Package

_PURE_BACKENDS = words("flit flit_core hatchling pdm poetry setuptools uv_build")


def table_of(data: Any, *keys: str) -> dict[str, Any]:
    """A table inside a table; empty where there is none."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


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
    requirements: list[tuple[str, str]] = field(default_factory=list)  # text, extra or nothing
    requires_python: str | None = None
    has: dict[str, bool] = field(default_factory=dict)  # a README, a licence
    missing: list[tuple[str, Place]] = field(default_factory=list)  # files: named, not there
    dynamic: frozenset[str] = frozenset()


@dataclass(eq=False)
class Plugin:
    """Everything that a static check looks at. It is read once and never changed."""

    root: Path
    is_wheel: bool = False
    config: str = "pyproject.toml"
    text: str = ""
    pyproject: dict[str, Any] = field(default_factory=dict)
    metadata: Metadata = field(default_factory=lambda: Metadata(Place("pyproject.toml")))
    entry_points: list[EntryPoint] = field(default_factory=list)
    groups: dict[str, Place] = field(default_factory=dict)
    package: Package = field(default_factory=Package)
    bases: dict[str, str] = field(default_factory=dict)  # top package: the folder that holds it
    problems: list[Fault] = field(default_factory=list)

    def __deepcopy__(self, memo: object) -> "Plugin":
        """repo-review copies fixtures for every run; this one is never changed."""
        return self

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """`[tool.exo-engine]`."""
        return table_of(self.pyproject, "tool", "exo-engine")

    @functools.cached_property
    def ignores(self) -> list[tuple[str, str, str]]:
        """What the project ignores: the table, the id, and the reason that it gives."""
        ignores = []
        for table in ("exo-engine", "repo-review"):
            ignore = table_of(self.pyproject, "tool", table).get("ignore", {})
            reasons = dict.fromkeys(map(str, ignore), "") if isinstance(ignore, list) else ignore
            for name, why in reasons.items() if isinstance(reasons, dict) else ():
                ignores.append((table, name, " ".join(why.split()) if isinstance(why, str) else ""))
        return ignores

    @functools.cached_property
    def concerns_exo(self) -> bool:
        """Whether the project has to do with exo at all: plain repo-review runs on any project."""
        grouped = any(group.startswith("exo") for group in self.groups)
        return grouped or any(i.top == "exo" for module in self.package for i in module.imports)

    def in_group(self, *groups: str) -> list[EntryPoint]:
        return [entry for entry in self.entry_points if entry.group in groups]

    @functools.cached_property
    def starts(self) -> list[int]:
        """Where each line of the text starts."""
        return [0, *(match.end() for match in re.finditer("\n", self.text))]

    def line(self, *texts: str) -> Place:
        """The line of the last text that is there, each looked for from the one before."""
        start = -1
        for text in texts:
            if (place := self.text.find(text, max(start, 0))) >= 0:
                start = self.text.rfind("\n", 0, place) + 1
        return Place(self.config, bisect.bisect(self.starts, start) if start >= 0 else 0)

    def line_of(self, requirement: str, extra: str) -> Place:
        """The line of a requirement; looked for in all of them, so only where there is a fault."""
        table = ("optional-dependencies", extra) if extra else ("dependencies",)
        return self.line(*table, requirement)

    def is_here(self, module: str) -> bool:
        """Whether a module has a source, or the compiled form that Python imports."""
        *above, name = module.split(".")
        folder = self.root.joinpath(self.bases.get(module.partition(".")[0], ""), *above)
        return module in self.package.modules or any(folder.glob(f"{name}.*so"))

    def lacks(self, entry: EntryPoint) -> bool:
        """Whether an entry point leads to a name that its module surely has not."""
        module = self.package.modules.get(entry.module)
        return bool(module and not module.is_open and entry.attribute not in module.names)

    def may_be_built(self) -> bool:
        """Whether the build may make a module: compile it, or run code."""
        backend = table_of(self.pyproject, "build-system").get("build-backend", "setuptools")
        pure = isinstance(backend, str) and re.split(r"[.:]", backend)[0] in _PURE_BACKENDS
        return not self.is_wheel and (not pure or is_file(self.root / "setup.py"))

    @functools.cached_property
    def engines(self) -> list[Class]:
        """The engines' classes that can be found, each once."""
        entries = self.in_group(host.GROUP_ENGINES)
        definitions = [self.package.find(entry.module, entry.attribute) for entry in entries]
        nodes = {place[1]: place[0] for place in definitions if not isinstance(place, str)}
        classes = [(m, node) for node, m in nodes.items() if isinstance(node, ast.ClassDef)]
        return [Class(self.package, module, node) for module, node in classes]

    def followed(self) -> Iterator[EntryPoint]:
        """The entry points that an exo reads and that lead to a name."""
        groups = (*host.GROUPS, host.GROUP_PLUGINS)
        return (entry for entry in self.in_group(*groups) if entry.is_well_formed)
