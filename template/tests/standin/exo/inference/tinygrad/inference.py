"""Stand-in for exo's own tinygrad engine."""

from exo.inference.builtin import BuiltInEngine


class TinygradDynamicShardInferenceEngine(BuiltInEngine):
    """Loads under the name that exo keeps for itself."""
