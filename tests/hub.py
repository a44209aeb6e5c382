"""A Hugging Face hub on loopback: what exo's downloader asks of one, for repositories on disk."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread


@contextmanager
def serve(repositories: dict[str, Path]) -> Iterator[str]:
    """The address of a hub that has these folders, by "owner/name"."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(*self.reply(), body=False)

        def do_GET(self) -> None:
            self.answer(*self.reply(), body=True)

        def reply(self) -> tuple[int, bytes]:
            for repository, folder in repositories.items():
                if self.path == f"/api/models/{repository}/tree/main":
                    return 200, json.dumps(listing(folder)).encode()
                name = self.path.removeprefix(f"/{repository}/resolve/main/")
                if name != self.path and (folder / name).is_file():
                    return 200, (folder / name).read_bytes()
            return 404, b"Entry not found"

        def answer(self, status: int, content: bytes, body: bool) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
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


def listing(folder: Path) -> list[dict[str, object]]:
    """A repository's files, as the hub lists them."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    return [{"type": "file", "path": f.name, "size": f.stat().st_size} for f in files]
