"""Starts an instance of a model once this node answers, as its dashboard would."""

import json
import logging
import time
import urllib.request
from typing import Any
from urllib.parse import urlencode

SECONDS = 120.0  # for this node to answer, and to know its own memory
_log = logging.getLogger(__name__)
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def place(model_id: str, port: int) -> None:
    """Start an instance of a model on this node alone; say so, and never raise.

    port: of this node's API. exo needs some seconds until it has a master and knows its memory.
    """
    until, problem = time.monotonic() + SECONDS, "it did not answer"
    while time.monotonic() < until:
        try:
            node = _ask(port, "/node_id")
            query = urlencode({"model_id": model_id, "node_ids": node})
            previews = _ask(port, f"/instance/previews?{query}")["previews"]
            if instances := [p["instance"] for p in previews if p["instance"]]:
                _ask(port, "/instance", {"instance": instances[0]})
                _log.info("%s starts on this node (--place none starts nothing)", model_id)
                return
            problem = "; ".join({str(p.get("error")) for p in previews}) or "no placement fits"
        except (OSError, ValueError, KeyError) as error:
            problem = str(error)
        time.sleep(0.5)
    _log.warning("%s could not be started on this node: %s", model_id, problem)


def _ask(port: int, path: str, body: Any = None) -> Any:
    """The JSON of a GET, or of a POST where there is a body."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    with _opener.open(request, timeout=10) as reply:
        return json.load(reply)
