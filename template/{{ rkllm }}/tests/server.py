"""A server that plays the three kinds, with their faults, for tests and for trying things out.

python server.py --kind rkllama --model Qwen2.5-1.5B-Instruct --tokens-per-second 8
"""

import argparse
import asyncio
import itertools
import json
from collections import deque
from collections.abc import Sequence
from typing import Any

from aiohttp import web
from fake_server import FakeServer

ANSWER = ("Hello ", "there, ", "this ", "is ", "the ", "NPU.")
HTML_500 = "<!doctype html><title>500</title><h1>Internal Server Error</h1><p>Broken.</p>"
FAULTS = (
    "empty", "zero_counts", "task_error", "timeout_sentence", "pad", "cut", "silence", "no_final",
)  # fmt: skip


class RkllmServer(FakeServer):
    """Plays one kind of server.

    rkllama: an answer that its limit ends loses its last chunk to the next answer, whoever asks;
    a stream that is closed early kills the model's worker. legacy: one text buffer for all.
    """

    def __init__(
        self, kind: str = "rkllama", models: Sequence[str] = ("Qwen2.5-1.5B-Instruct",)
    ) -> None:
        super().__init__(models, ANSWER)
        self.kind = kind
        self.loaded: list[str] = []
        self.loads = 0
        self.talks_on = False  # rkllama: also the answer to a short question has no end
        self.left: list[str] = []  # rkllama: what opens the next answer
        self._buffer: deque[str] = deque()  # legacy: one for all requests
        self._unsent: list[str] = []  # legacy: of the running stream
        self._dead: set[str] = set()  # rkllama: models whose worker was killed

    @property
    def chat_requests(self) -> list[dict[str, Any]]:
        """Every request for an answer, but those of the plugin's own short question."""
        return [r for r in self.requests if "messages" in r and not _is_short(r)]

    async def play(
        self, request: web.Request, path: str, body: dict[str, Any]
    ) -> web.StreamResponse:
        """Answer as the kind does."""
        kinds = {"rkllama": self._rkllama, "legacy": self._legacy, "openai": self._openai}
        play = kinds.get(self.kind)
        if play is None:
            return web.json_response({"detail": "not found"}, status=404)
        return await play(request, path, body)

    # --- rkllama -----------------------------------------------------------------------------

    async def _rkllama(
        self, request: web.Request, path: str, body: dict[str, Any]
    ) -> web.StreamResponse:
        name = body.get("model_name", "")
        if path == "/":
            return web.json_response({"message": "Welcome to RKLLama with Ollama API"})
        if path == "/api/version":
            return web.json_response({"version": "0.0.74"})
        if path == "/models":
            return web.json_response({"models": self.models})
        if path == "/load_model":
            return self._load(name, many=True)
        if path == "/unload_model":
            if name not in self.loaded:
                return _error(f"No model {name} are currently loaded.", 400)
            self.loaded.remove(name)
            self._dead.discard(name)
            self.left.clear()
            return web.json_response({"message": f"Model {name} successfully unloaded!"})
        if path == "/api/chat":
            return await self._chat(request, body)
        return _error("not found", 404)

    def _load(self, name: str, many: bool) -> web.StreamResponse:
        fault = self.take("load_refused", "load_500_html")
        if fault == "load_refused":
            return _error(f"Unexpected Error loading the model {name} into memory.", 400)
        if fault == "load_500_html":
            return web.Response(status=500, text=HTML_500, content_type="text/html")
        if name not in self.models:
            return _error(f"Model directory '{name}' not found.", 400)
        if name in self.loaded and many:
            return _error("A model is already loaded. Nothing to do.", 200)
        if self.loaded and not many:
            return _error("A model is already loaded. Please unload it first.", 400)
        self.loaded.append(name)
        self.loads += 1
        return web.json_response({"message": f"Model {name} loaded successfully."})

    async def _chat(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        model, limit = body["model"], int(body.get("options", {}).get("num_predict", 1024))
        if model not in self.models:
            return _error(f"Failed to load model '{model}'", 500)
        if model not in self.loaded:
            self.loaded.append(model)
        if model in self._dead:
            await self.hang()  # the worker is gone; the server waits for it

        def event(text: str, **more: Any) -> bytes:
            message = {"role": "assistant", "content": text}
            return _line({"model": model, "message": message, "done": False} | more)

        fault = "" if _is_short(body) else self.take(*FAULTS)
        own = faulty(fault, self._fields(body))[:limit]
        pieces, self.left = [*self.left, *own], []
        if len(own) == limit:
            self.left = [pieces.pop()]
        count = {"zero_counts": 0, "timeout_sentence": 0, "empty": 5}.get(fault, len(own))
        counts = {"prompt_eval_count": 21, "eval_count": count}
        last = event("", done=True, done_reason="stop", **counts)
        events = [event(piece) for piece in pieces]
        try:
            return await self.stream(
                request, "application/x-ndjson", events, last, in_stream(fault)
            )
        except (ConnectionError, asyncio.CancelledError):
            self._dead.add(model)
            raise

    def _fields(self, body: dict[str, Any]) -> list[str]:
        if not _is_short(body):
            return self.next_answer()
        return ["OK "] * 1000 if self.talks_on else ["OK", "."]

    # --- openai ------------------------------------------------------------------------------

    async def _openai(
        self, request: web.Request, path: str, body: dict[str, Any]
    ) -> web.StreamResponse:
        if path == "/v1/models":
            return web.json_response({"object": "list", "data": [{"id": m} for m in self.models]})
        if path != "/v1/chat/completions":
            return _error("not found", 404)
        if body["model"] not in self.models:
            return _error(f"model {body['model']} not found", 404)
        fault = self.take(*FAULTS)
        answer = faulty(fault, self.next_answer())
        pieces = answer[: int(body.get("max_tokens", 1024))]
        finish = "stop" if len(pieces) == len(answer) else "length"
        events = [
            _sse({"choices": [{"delta": {"content": piece}, "finish_reason": None}]})
            for piece in pieces
        ]
        last = _sse({"choices": [{"delta": {}, "finish_reason": finish}]})
        last += _sse(
            {"choices": [], "usage": {"prompt_tokens": 21, "completion_tokens": len(pieces)}}
        )
        last += b"data: [DONE]\n\n"
        return await self.stream(request, "text/event-stream", events, last, in_stream(fault))

    # --- legacy ------------------------------------------------------------------------------

    async def _legacy(
        self, request: web.Request, path: str, body: dict[str, Any]
    ) -> web.StreamResponse:
        if path == "/":
            return web.json_response({"message": "Welcome to RKLLama !"})
        if path == "/models":
            return web.json_response({"models": self.models})
        if path == "/current_model":
            if self.loaded:
                return web.json_response({"model_name": self.loaded[0]})
            return _error("No models are currently loaded.", 404)
        if path == "/load_model":
            return self._load(body.get("model_name", ""), many=False)
        if path == "/unload_model":
            if not self.loaded:
                return _error("No models are currently loaded.", 400)
            self.loaded.clear()
            return web.json_response({"message": "Model successfully unloaded!"})
        if path == "/generate":
            return await self._generate(request, body)
        return web.Response(status=404, text="<h1>Not Found</h1>", content_type="text/html")

    async def _generate(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if not self.loaded:
            return _error("No models are currently loaded.", 400)
        roles = ["system", *(m["role"] for m in body["messages"])]  # its own system text is first
        if any(a == b for a, b in itertools.pairwise(roles)):
            return web.Response(status=500, text=HTML_500, content_type="text/html")
        left = list(self._buffer)  # what an earlier answer left opens this one
        self._buffer.clear()
        if not body.get("stream"):
            return web.json_response(_legacy_event("".join([*left, "OK", "."]), 2))
        fault = self.take(*FAULTS)
        pieces = [*left, *faulty(fault, self.next_answer())]
        events = [_line(_legacy_event(text, n + 1)) + b"\n" for n, text in enumerate(pieces)]
        self._unsent = pieces
        try:
            return await self.stream(request, "text/plain", events, b"", in_stream(fault))
        except (ConnectionError, asyncio.CancelledError):
            self._buffer.extend(self._unsent)
            raise

    def sent(self, count: int) -> None:
        """Keep what a legacy server has still to say."""
        self._unsent = self._unsent[1:]


def faulty(fault: str, pieces: list[str]) -> list[str]:
    """An answer with a fault in its text."""
    return {
        "empty": [],
        "task_error": [*pieces[:2], "<RKLLM_TASK_ERROR>"],
        "timeout_sentence": ["Aborted inference by Timeout (300 seconds). Try again."],
        "pad": ["[PAD151935]"] * 20,
    }.get(fault, pieces)


def in_stream(fault: str) -> str:
    """What becomes of the stream; the runtime's error ends it without a last event."""
    return "reset" if fault == "task_error" else fault


def _is_short(body: dict[str, Any]) -> bool:
    return [m.get("content") for m in body.get("messages", [])] == ["Say OK."]


def _error(text: str, status: int) -> web.Response:
    return web.json_response({"error": text}, status=status)


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode() + b"\n"


def _sse(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _legacy_event(text: str, count: int) -> dict[str, Any]:
    choice = {"role": "assistant", "content": text, "logprobs": None, "finish_reason": None}
    return {"id": "rkllm_chat", "choices": [choice], "usage": {"completion_tokens": count}}


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=["rkllama", "legacy", "openai"], default="rkllama")
    parser.add_argument("--model", action="append", help="a model that it has; may be repeated")
    parser.add_argument("--tokens-per-second", type=float)
    parser.add_argument("--pieces", nargs="+", default=ANSWER, help="the answer")
    parser.add_argument("--times", type=int, default=1, help="how often the pieces are repeated")
    arguments = parser.parse_args()
    models = arguments.model or ["Qwen2.5-1.5B-Instruct"]
    server = RkllmServer(arguments.kind, models)
    server.default_answer = list(arguments.pieces) * arguments.times
    server.tokens_per_second = arguments.tokens_per_second
    print(server.start().url, flush=True)
    server.wait()


if __name__ == "__main__":
    main()
