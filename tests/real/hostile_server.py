"""A server that plays vLLM, and whose streams have more ids than anybody asked for.

Whose, and how many, stand in the prompt: "halves IDS EVENTS" or "letters IDS EVENTS". Any other
prompt is answered by a short text.
"""

import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from tokenizers import Tokenizer

TEXT = "Hello there."


class HostileServer(ThreadingHTTPServer):
    """On a free port of the network that start() is called in. half: an id of half a character."""

    daemon_threads = True

    def __init__(self, model: str, tokenizer: Path, half: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model, self.half = model, half
        self.tokenizer = Tokenizer.from_file(str(tokenizer))

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    def start(self) -> "HostileServer":
        """Serve on a thread."""
        Thread(target=self.serve_forever, daemon=True).start()
        return self

    def ids(self, text: str) -> list[int]:
        """A text's ids."""
        ids_read: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids_read

    def events(self, prompt: str) -> Iterator[dict[str, Any]]:
        """Those of an answer."""
        if match := re.search(r"(halves|letters) (\d+) (\d+)", prompt):
            kind, ids, events = match[1], int(match[2]), int(match[3])
            one, text = (self.half, "") if kind == "halves" else (self.ids("a")[0], "a")
            for _ in range(events):
                yield choice(text * (ids // events), [one] * (ids // events))
        else:
            yield choice(TEXT, self.ids(TEXT))
        yield choice("", [], "stop")


def choice(text: str, ids: list[int], finish: str | None = None) -> dict[str, Any]:
    """One event."""
    one: dict[str, Any] = {"index": 0, "text": text, "delta": {"content": text}, "token_ids": ids}
    return {"choices": [one | {"finish_reason": finish}]}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: HostileServer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Which server this is."""
        model = {"id": self.server.model, "object": "model", "owned_by": "vllm"}
        self._reply({"/v1/models": {"data": [model]}, "/version": {"version": "1"}}.get(self.path))

    def do_POST(self) -> None:
        """Ids, or an answer."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body.get("prompt") or json.dumps(body.get("messages", ""))
        if not isinstance(prompt, str):
            prompt = self.server.tokenizer.decode(prompt)
        if self.path == "/tokenize":
            self._reply({"tokens": self.server.ids(prompt)})
        elif not body.get("stream"):
            self._reply({"choices": [], "usage": {"prompt_tokens": len(self.server.ids(prompt))}})
        else:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for event in self.server.events(prompt):
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")

    def _reply(self, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
