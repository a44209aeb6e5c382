"""Metrics in Prometheus' default registry, which exo serves at /metrics.

Every name starts with the package's name; no label is ever a request.
"""

import logging
from typing import Literal, TypeVar, get_args

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


# A token of a fast device, and a prompt or a load of minutes on a slow one.
_STEPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_ANSWERS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_LOADS = (1, 2.5, 5, 10, 30, 60, 120, 300, 600)

REQUESTS = _metric(Counter, "requests", "Requests that ended, each once", ("outcome", "cause"))
TOKENS = _metric(Counter, "tokens", "Tokens of answers; a server's chunks where it gives no ids")
FIRST_TOKEN_SECONDS = _metric(
    Histogram,
    "first_token_seconds",
    "Arrival to the first token, queue and load included",
    buckets=_ANSWERS,
)
QUEUE_SECONDS = _metric(
    Histogram, "queue_seconds", "A step's wait for the device", ("phase",), buckets=_STEPS
)
STEP_SECONDS = _metric(
    Histogram, "step_seconds", "A step on the device itself", ("phase",), buckets=_STEPS
)
LOAD_SECONDS = _metric(Histogram, "load_seconds", "Loading a model", buckets=_LOADS)
IN_FLIGHT = _metric(
    Gauge, "requests_in_flight", "Requests that have not ended, whose state is held"
)
HELD_BYTES = _metric(
    Gauge, "held_bytes", "States of requests in flight, and of ended answers", ("of",)
)
BATCH_SIZE = _metric(
    Histogram, "batch_size", "Steps that ran together", buckets=(1, 2, 4, 8, 16, 32, 64)
)
REUSE_HITS = _metric(Counter, "reuse_hits", "Prompts that took over what an earlier one computed")
REUSED_TOKENS = _metric(Counter, "reused_tokens", "Tokens that were not computed again")
MODEL_BYTES = _metric(Gauge, "model_bytes", "What the loaded layers take, where it tells that")
QUEUED = _metric(Gauge, "steps_queued", "Steps that wait for the device or run on it")
LOADED = _metric(Info, "loaded", "The model, its layers on this node, and the plugin")
BACKEND_UP = _metric(Gauge, "backend_up", "1 after a success of the backend, 0 after a failure")
BACKEND_UP.set(float("nan"))  # not known before the first

# From the start on: what appears with its first event has no increase that can be seen.
for _outcome in ("finished", "cancelled", "evicted"):
    REQUESTS.labels(_outcome, "")
for _cause in get_args(Cause):
    REQUESTS.labels("failed", _cause)
for _phase in ("prefill", "decode"):
    QUEUE_SECONDS.labels(_phase)
    STEP_SECONDS.labels(_phase)
