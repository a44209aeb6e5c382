"""An inference engine plugin for exo.

exo reads this module while `exo.models` is being imported, so it imports nothing of exo and nothing
heavy.
"""


def __getattr__(name: str) -> object:
    """The version, looked up when it is first asked for."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    from .names import PROJECT

    return version(PROJECT)
