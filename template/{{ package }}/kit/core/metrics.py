"""Metrics in Prometheus' default registry, which exo serves at /metrics.

Every name starts with the package's name; no label is ever a request.
"""

import logging
from typing import Literal, TypeVar

from prometheus_client import Counter, Gauge, Histogram, Info

from ..names import PACKAGE

# Why a request failed: itself, the model's load, the device or server, another node, anything else.
Cause = Literal["request", "model", "device", "cluster", "engine"]
_Metric = TypeVar("_Metric", Counter, Gauge, Histogram, Info)


def _metric(
    kind: type[_Metric], name: str, text: str, labels: tuple[str, ...] = (), **more: object
) -> _Metric:
    """Make a metric; where its name is taken, one that nobody serves, so that exo still starts."""
    try:
        return kind(f"{PACKAGE}_{name}", text, labels, **more)  # type: ignore[arg-type] # its own
    except ValueError as error:
        logging.getLogger(__name__).warning("metric not served: %s", error)
        return kind(f"{PACKAGE}_{name}", text, labels, registry=None, **more)  # type: ignore[arg-type] # its own


REQUESTS = _metric(Counter, "requests", "Requests that ended, each once", ("outcome", "cause"))
TOKENS = _metric(Counter, "tokens", "Tokens of answers; a server's chunks where it gives no ids")
FIRST_TOKEN_SECONDS = _metric(
    Histogram, "first_token_seconds", "Arrival to the first token, queue and load included"
)
QUEUE_SECONDS = _metric(Histogram, "queue_seconds", "A step's wait for the device", ("phase",))
STEP_SECONDS = _metric(Histogram, "step_seconds", "A step on the device itself", ("phase",))
BATCH_SIZE = _metric(
    Histogram, "batch_size", "Steps that ran together", buckets=(1, 2, 4, 8, 16, 32, 64)
)
REUSE_HITS = _metric(Counter, "reuse_hits", "Prompts that took over what an earlier one computed")
REUSED_TOKENS = _metric(Counter, "reused_tokens", "Tokens that were not computed again")
HELD_BYTES = _metric(
    Gauge, "held_bytes", "States of requests in flight, and of ended answers", ("of",)
)
LOAD_SECONDS = _metric(
    Histogram, "load_seconds", "Loading a model", buckets=(1, 2.5, 5, 10, 30, 60, 120, 300, 600)
)
IN_FLIGHT = _metric(
    Gauge, "requests_in_flight", "Requests that have not ended, whose state is held"
)
QUEUED = _metric(Gauge, "steps_queued", "Steps that wait for the device or run on it")
LOADED = _metric(Info, "loaded", "The model, its layers on this node, and the plugin")
BACKEND_UP = _metric(Gauge, "backend_up", "1 after a success of the backend, 0 after a failure")
BACKEND_UP.set(float("nan"))  # not known before the first
