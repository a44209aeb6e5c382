"""A Hugging Face hub on loopback with one repository."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0" * 40


@contextmanager
def serve(name: str, folder: Path) -> Iterator[str]:
    """The address of a hub that has this folder as "owner/name"."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def reply(self) -> tuple[int, bytes]:
            path = self.path.partition("?")[0]
            if path in (f"/api/models/{name}", f"/api/models/{name}/revision/main"):
                files = [{"rfilename": f.name, "size": f.stat().st_size} for f in folder.iterdir()]
                return 200, json.dumps({"id": name, "sha": COMMIT, "siblings": files}).encode()
            if path.startswith(f"/api/models/{name}/tree/"):
                tree = [
                    {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": COMMIT}
                    for f in folder.iterdir()
                ]
                return 200, json.dumps(tree).encode()
            file = folder / path.rpartition("/")[2]
            if path.startswith(f"/{name}/resolve/") and file.is_file():
                return 200, file.read_bytes()
            return 404, b"{}"

        def answer(self, body: bool) -> None:
            status, content = self.reply()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
