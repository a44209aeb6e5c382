"""The checks: those that read the project, one module a family, and those that run it."""

from pathlib import Path
from typing import Any

from ..files import CannotRunError
from ..findings import Check
from ..inside import checks as inside
from ..plugin import Plugin
from ..reading import read_plugin
from . import dependencies, engine, entry_points, packaging, project

FAMILIES = {
    "exo-project": "Reading the project",
    "exo-entry-points": "Entry points",
    "exo-packaging": "Packaging",
    "exo-dependencies": "Dependencies",
    "exo-engine": "The engine's class",
}


def static_checks() -> dict[str, type[Check]]:
    """The checks that run no code of the plugin, by id."""
    found = inside.collect(project, entry_points, packaging, dependencies, engine)
    return dict(sorted(found.items()))


def running_checks() -> dict[str, Any]:
    """The checks that run the plugin, in the order in which they do."""
    return inside.all_checks()


def all_checks() -> dict[str, Any]:
    """All checks, by id."""
    return dict(sorted((static_checks() | running_checks()).items()))


# What plain repo-review asks for: it shows the checks that run nothing beside its others.


def checks_for_repo_review(exo_plugin: Plugin, list_all: bool) -> dict[str, Check]:
    """None where the project has nothing to do with exo."""
    wanted = list_all or exo_plugin.concerns_exo
    return {name: check() for name, check in static_checks().items()} if wanted else {}


def repo_review_families() -> dict[str, dict[str, Any]]:
    """The families, in the order in which they are shown."""
    return {key: {"name": name, "order": 100 + n} for n, (key, name) in enumerate(FAMILIES.items())}


def exo_plugin(package: Any) -> Plugin:
    """Fixture: the plugin, read and not imported."""
    try:
        return read_plugin(Path(str(package)))
    except CannotRunError:
        return Plugin(Path(str(package)))
