"""A Hugging Face hub on loopback: what its library, and exo's downloader, ask of one."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0" * 40


@contextmanager
def serve(repositories: dict[str, Path], fetched: list[str] | None = None) -> Iterator[str]:
    """The address of a hub that has these folders, by "owner/name".

    fetched: it gets the name of each file that is read.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(*self.reply(), body=False)

        def do_GET(self) -> None:
            self.answer(*self.reply(), body=True)

        def reply(self) -> tuple[int, bytes]:
            path = self.path.partition("?")[0]
            for name, folder in repositories.items():
                if re.fullmatch(rf"/api/models/{name}(/revision/[^/]+)?", path):
                    files = [{"rfilename": file["path"]} | file for file in listing(folder)]
                    info = {"id": name, "sha": COMMIT, "siblings": files}
                    return 200, json.dumps(info).encode()
                if path.startswith(f"/api/models/{name}/tree/"):
                    return 200, json.dumps(listing(folder)).encode()
                match = re.fullmatch(rf"/{name}/resolve/[^/]+/(.+)", path)
                if match and (folder / match[1]).is_file():
                    if fetched is not None and self.command == "GET":
                        fetched.append(match[1])
                    return 200, (folder / match[1]).read_bytes()
            return 404, b"Entry not found"

        def answer(self, status: int, content: bytes, body: bool) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def listing(folder: Path) -> list[dict[str, object]]:
    """A repository's files, as the hub lists them."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    return [
        {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": COMMIT} for f in files
    ]
