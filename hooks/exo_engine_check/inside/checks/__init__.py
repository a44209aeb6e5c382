"""The checks that run the plugin, in the order in which they do."""

import re
from types import ModuleType

from ..check import Check
from . import (
    abilities,
    answers,
    clients,
    detection,
    ending,
    exo_0_3,
    importing,
    models,
    nodes,
    requests_0_3,
)

_MODULES = (
    *(importing, models, detection, answers, abilities, nodes, clients),
    *(exo_0_3, requests_0_3, ending),
)


def collect(*modules: ModuleType) -> dict[str, type[Check]]:
    """The checks of modules: their classes that are named by an id."""
    names = ((name, value) for module in modules for name, value in vars(module).items())
    return {name: value for name, value in names if re.fullmatch(r"EX\d{3}", name)}


def all_checks() -> dict[str, type[Check]]:
    """All checks by id; what needs a process in which nothing has happened comes first."""
    return collect(*_MODULES)
