"""Stand-in for exo's own dummy engine."""

from exo.inference.builtin import BuiltInEngine


class DummyInferenceEngine(BuiltInEngine):
    """Loads under the name that exo keeps for itself."""
