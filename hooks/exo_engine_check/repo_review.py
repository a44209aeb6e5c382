"""The checks that read, as plain repo-review shows them beside its others."""

from pathlib import Path
from typing import Any

from .checks import static_checks
from .files import CannotRunError
from .inside.check import Check
from .plugin import Plugin
from .reading import read_plugin
from .report import Report
from .run import LAST

FAMILIES = {
    "exo-run": "What the plugin says of itself",
    "exo-project": "Reading the project",
    "exo-entry-points": "Entry points",
    "exo-packaging": "Packaging",
    "exo-dependencies": "Dependencies",
    "exo-engine": "The engine's class",
}


def families() -> dict[str, dict[str, Any]]:
    """The families, in the order in which they are shown."""
    return {key: {"name": name, "order": 100 + n} for n, (key, name) in enumerate(FAMILIES.items())}


def exo_plugin(package: Any) -> Plugin:
    """Fixture: the plugin, read and not imported."""
    try:
        return read_plugin(Path(str(package)))
    except CannotRunError:
        return Plugin(Path(str(package)))


def checks(exo_plugin: Plugin, list_all: bool) -> dict[str, Any]:
    """The checks by id; none where the project has nothing to do with exo."""
    all_of_them = {**static_checks(), **LAST} if list_all or exo_plugin.concerns_exo else {}
    return {name: _adapted(check) for name, check in all_of_them.items()}


def _adapted(check: type[Check]) -> Any:
    """A check in repo-review's form: an object whose `check` gives a text, empty for no fault."""
    more = (Report(),) if check in LAST.values() else ()

    def text(exo_plugin: Plugin) -> str:
        faults = sorted(set(check.check(exo_plugin, *more)))
        return "\n".join([*(f"- {fault}" for fault in faults), "", check.manual()] * bool(faults))

    family = "exo-" + check.__module__.rpartition(".")[2].replace("_", "-")
    members = {"__doc__": check.title(), "family": family, "check": staticmethod(text)}
    return type(check.__name__, (), members)()
