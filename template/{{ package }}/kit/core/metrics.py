"""Metrics in Prometheus' default registry, which exo serves at /metrics.

Every name starts with the package's name; no label is ever a request.
"""

import logging
from typing import TypeVar

from prometheus_client import Counter, Gauge, Histogram

_PREFIX = __package__.partition(".")[0]
_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


def _metric(kind: type[_Metric], name: str, text: str, labels: tuple[str, ...] = ()) -> _Metric:
    """Make a metric; where its name is taken, one that nobody serves, so that exo still starts."""
    try:
        return kind(f"{_PREFIX}_{name}", text, labels)
    except ValueError as error:
        logging.getLogger(__name__).warning("metric not served: %s", error)
        return kind(f"{_PREFIX}_{name}", text, labels, registry=None)


REQUESTS = _metric(Counter, "requests", "Requests by outcome", ("outcome",))
TOKENS = _metric(Counter, "tokens", "Tokens handed to exo")
FIRST_TOKEN_SECONDS = _metric(Histogram, "first_token_seconds", "Arrival to the first token")
STEP_SECONDS = _metric(Histogram, "step_seconds", "One step on the device", ("phase",))
LOAD_SECONDS = _metric(Histogram, "load_seconds", "Loading a model")
IN_FLIGHT = _metric(Gauge, "requests_in_flight", "Requests that have not ended")
BACKEND_UP = _metric(Gauge, "backend_up", "1 after a success of the backend, 0 after a failure")
BACKEND_UP.set(float("nan"))  # not known before the first
