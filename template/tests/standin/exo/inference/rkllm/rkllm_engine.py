"""Stand-in for exo's own RKLLM engine."""

from exo.inference.builtin import BuiltInEngine


class RKLLMInferenceEngine(BuiltInEngine):
    """Loads under the name that exo keeps for itself."""
