"""The checks: those that read the project, one module a family, and those that run the plugin."""

from ..inside import checks as inside
from ..inside.check import Check
from . import dependencies, engine, entry_points, packaging, project


def static_checks() -> dict[str, type[Check]]:
    """The checks that run no code of the plugin, by id."""
    checks = inside.collect(project, entry_points, packaging, dependencies, engine)
    return dict(sorted(checks.items()))


def running_checks() -> dict[str, type[Check]]:
    """The checks that run the plugin, in the order in which they do."""
    return inside.all_checks()
