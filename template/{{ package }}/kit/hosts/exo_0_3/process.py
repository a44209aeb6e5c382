"""The process of one model: what stands in for MLX in it, how it ends, and its metrics."""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
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

    def make(**arguments: Any) -> PluginBuilder:
        builders.append(PluginBuilder(plugin, arguments["cancel_receiver"]))
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

    A thread waits for both, and ends the process: the main one may be in a call that a signal does
    not reach, and exo's own way out waits for threads that nobody wakes any more.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())  # the number of each signal that has a handler
    signal.signal(signal.SIGTERM, lambda *_: None)
    parent = multiprocessing.parent_process()
    assert parent is not None, "exo starts this process"

    def watch() -> None:
        while True:
            ready = wait([reader, parent.sentinel])
            if parent.sentinel in ready or signal.SIGTERM in reader.recv(64):
                break
        close()
        writer.close()
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name="end", daemon=True).start()


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
