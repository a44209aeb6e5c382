"""The checks that run the plugin, in the order in which they do."""

import re

from ..core import Check
from . import abilities, answers, clients, detection, ending, importing, made, mends, models

_MODULES = (importing, models, detection, made, answers, abilities, mends, clients, ending)


def all_checks() -> dict[str, type[Check]]:
    """All checks by id; what has to be seen in a process that has seen nothing comes first."""
    return {
        name: value
        for module in _MODULES
        for name, value in vars(module).items()
        if isinstance(value, type) and re.fullmatch(r"EX\d{3}", name)
    }
