"""The process of one model: what stands in for MLX in it, how it ends, and its metrics."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ... import logs, settings
from ...plugin import Plugin
from .compatibility import BUILDER, PATCHES

PORTS = 100  # of the metrics: several instances on one node take one after the other
_log = logging.getLogger(__name__)


def run(plugin: Plugin, *args: Any, **named: Any) -> None:
    """exo's own entrypoint, which finds our builder where it looks for MLX's."""
    from exo.worker.runner import bootstrap

    from .engine import PluginBuilder

    logs.speak()
    builders: list[PluginBuilder] = []

    def make(**given: Any) -> PluginBuilder:
        builders.append(PluginBuilder(plugin.load_backend, given["cancel_receiver"]))
        return builders[-1]

    def close() -> None:
        for builder in builders:
            builder.close()

    _stand_in(PATCHES, "apply_mlx_patches", lambda: None)
    _stand_in(BUILDER, "MlxBuilder", make)
    _end_with(close)
    serve_metrics()
    try:
        bootstrap.entrypoint(*args, **named)
    finally:
        close()


def _stand_in(name: str, member: str, value: object) -> None:
    module = ModuleType(name)
    setattr(module, member, value)
    sys.modules[name] = module


def _end_with(close: Callable[[], None]) -> None:
    """Give the device back at SIGTERM, and when the node is gone, which a killed one can't say.

    Both end the process at once: exo's own way out waits for threads that nobody wakes any more.
    """
    parent = multiprocessing.parent_process()

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # exo sends more of them while it waits
        close()
        os._exit(128 + signal.SIGTERM)

    def watch() -> None:
        assert parent is not None
        parent.join()
        close()
        os._exit(1)

    signal.signal(signal.SIGTERM, end)
    if parent is not None:
        threading.Thread(target=watch, name="parent", daemon=True).start()


def serve_metrics() -> int | None:
    """Serve this process's metrics on 127.0.0.1, where a setting asks for it; the port."""
    first = settings.whole("METRICS_PORT")
    if first is None:
        return None
    from prometheus_client import start_http_server

    for port in range(first, min(first + PORTS, 1 << 16)):
        try:
            start_http_server(port, addr="127.0.0.1")
        except OSError:
            continue  # another instance's
        _log.info("metrics are at http://127.0.0.1:%d/metrics", port)
        return port
    _log.warning("metrics are not served: no port from %d on is free", first)
    return None
