"""A test server, which the plugin's engine asks; it needs no pytest."""

import contextlib
import os
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path


class Handler(socketserver.StreamRequestHandler):
    """One word of the prompt's length after the other."""

    def handle(self) -> None:
        for n, _ in enumerate(iter(self.rfile.readline, b"")):
            self.wfile.write(b"%d\n" % (65 + n if n < 10 else 0))


class Server(socketserver.ThreadingTCPServer):
    """It drops everybody when it is told to fail."""

    allow_reuse_address = daemon_threads = True
    model = "whole-answers"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.open: list[object] = []

    def process_request(self, request: object, client_address: object) -> None:
        self.open.append(request)
        super().process_request(request, client_address)

    def fail(self) -> None:
        self.shutdown()
        self.server_close()
        for request in self.open:
            self.shutdown_request(request)


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """What `exo-engine check` enters around the checks that need a device."""
    server = Server()
    before = os.environ.get("ANSWERS_PORT")
    os.environ["ANSWERS_PORT"] = str(server.server_address[1])
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    ).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        os.environ.pop("ANSWERS_PORT")
        if before is not None:
            os.environ["ANSWERS_PORT"] = before
