"""What this plugin hands to its kit: the command and exo 0.3 begin here."""

from .kit.contract import Backend
from .kit.plugin import Plugin
from .models import MODELS
from .names import PACKAGE


def load_backend() -> Backend:
    """The class of backend.py, imported when it is first asked for."""
    from .backend import Backend as Own

    return Own


PLUGIN = Plugin(PACKAGE, load_backend, MODELS)
