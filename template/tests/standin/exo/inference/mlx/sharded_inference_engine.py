"""Stand-in for exo's own MLX engine."""

from exo.inference.builtin import BuiltInEngine


class MLXDynamicShardInferenceEngine(BuiltInEngine):
    """Loads under the name that exo keeps for itself."""
