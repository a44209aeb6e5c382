"""The checks, one module a family, and how repo-review gets them."""

from importlib.resources.abc import Traversable
from typing import Any

from ..files import CannotRunError
from ..findings import Check, collect
from ..plugin import Plugin
from ..reading import read_plugin
from . import detection, engine, entry_points, imports, loading, models, packaging, project, state

FAMILIES: dict[str, dict[str, Any]] = {
    "exo-project": {"name": "Reading the project", "order": 100},
    "exo-entry-points": {"name": "Entry points", "order": 101},
    "exo-packaging": {"name": "Packaging", "order": 102},
    "exo-engine": {"name": "Engine", "order": 103},
    "exo-models": {"name": "Models", "order": 104},
    "exo-detection": {"name": "Device detection", "order": 105},
    "exo-state": {"name": "State and metrics", "order": 106},
    "exo-loading": {"name": "What an import does", "order": 107},
    "exo-import": {"name": "Loaded and driven (--import)", "order": 109},
}

_MODULES = (
    project,
    entry_points,
    packaging,
    engine,
    models,
    detection,
    state,
    loading,
    imports,
)


def repo_review_checks() -> dict[str, Check]:
    """All checks by id."""
    found: dict[str, Check] = {}
    for module in _MODULES:
        found |= collect(vars(module))
    return dict(sorted(found.items()))


def checks_for_repo_review(exo_plugin: Plugin, list_all: bool) -> dict[str, Check]:
    """The same for plain repo-review, which runs on projects that have nothing to do with exo."""
    return repo_review_checks() if list_all or exo_plugin.concerns_exo else {}


def repo_review_families() -> dict[str, dict[str, Any]]:
    """The families, in the order in which they are shown."""
    return FAMILIES


def exo_plugin(package: Traversable) -> Plugin:
    """Fixture: the plugin, read and not imported."""
    try:
        return read_plugin(package)
    except CannotRunError:
        return Plugin(package)


def exo_import() -> None:
    """Fixture: what `exo-engine check --import` saw; plain repo-review runs no plugin."""
    return
