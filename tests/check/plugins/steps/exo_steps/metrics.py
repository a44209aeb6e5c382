"""What Prometheus sees."""

from prometheus_client import REGISTRY, Counter

try:
    TOKENS = Counter("exo_steps_tokens", "Tokens", ("phase",))
except ValueError:
    TOKENS = Counter("exo_steps_tokens", "Tokens", ("phase",), registry=None)
assert REGISTRY is not None
