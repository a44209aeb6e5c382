"""The checks that run the plugin, in the order in which they do."""

import re
from types import ModuleType
from typing import Any

from ..core import Check
from . import abilities, answers, clients, detection, ending, importing, made, mends, models

_MODULES = (importing, models, detection, made, answers, abilities, mends, clients, ending)


def collect(*modules: ModuleType) -> dict[str, Any]:
    """The checks of modules: their classes that are named by an id."""
    found = ((name, value) for module in modules for name, value in vars(module).items())
    return {name: value for name, value in found if re.fullmatch(r"EX\d{3}", name)}


def all_checks() -> dict[str, type[Check]]:
    """All checks by id; what has to be seen in a process that has seen nothing comes first."""
    return collect(*_MODULES)
