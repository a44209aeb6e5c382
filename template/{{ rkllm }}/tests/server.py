"""A server that plays the three kinds, with their faults, for tests and for trying things out.

python server.py --kind rkllama --model Qwen2.5-1.5B-Instruct --tokens-per-second 8
"""

import argparse
import asyncio
import itertools
import json
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
DEFAULT = ["Hello ", "there, ", "this ", "is ", "the ", "NPU."]
HTML_500 = "<!doctype html><title>500</title><h1>Internal Server Error</h1><p>Broken.</p>"


class FakeServer:
    """Runs on a free loopback port, in a thread with a loop of its own.

    `fault` is for the next load or answer. `script()` queues an answer, a list of pieces.
    """

    def __init__(self, kind: str = "rkllama", models: list[str] | None = None) -> None:
        self.kind = kind
        self.models = models if models is not None else ["Qwen2.5-1.5B-Instruct"]
        self.fault = ""
        self.hanging: set[str] = set()  # paths that never answer
        self.tokens_per_second: float | None = None
        self.default_answer: list[str] = list(DEFAULT)
        self.loaded: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.max_concurrent = 0
        self.open_connections = 0
        self._answers: deque[list[str]] = deque()
        self._buffer: deque[str] = deque()  # legacy: one for all requests
        self._dead: set[str] = set()  # rkllama: models whose worker was killed
        self._held_back: list[str] = []
        self._running = 0
        self._loop = asyncio.new_event_loop()
        self._quit = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.url = ""

    @property
    def chat_requests(self) -> list[list[dict[str, str]]]:
        """The messages of every request for an answer."""
        return [r["messages"] for r in self.requests if "messages" in r]

    def script(self, pieces: list[str] | str) -> None:
        """Queue an answer."""
        self._answers.append([pieces] if isinstance(pieces, str) else list(pieces))

    def start(self) -> "FakeServer":
        """Serve; returns when the port is open."""
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the test server did not start")
        return self

    def stop(self) -> None:
        """End every connection and the thread; once is enough."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._quit.set)
            self._thread.join(10)

    def wait(self) -> None:
        """Serve until the process is ended."""
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application(middlewares=[self._middleware])
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.05, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"
        self._ready.set()
        await self._quit.wait()
        await runner.cleanup()

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.open_connections += 1
        try:
            response = await handler(request)
            response.force_close()
            return response
        finally:
            self.open_connections -= 1

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body: dict[str, Any] = {}
        if request.method == "POST":
            body = await request.json()
            self.requests.append(body)
        if request.path in self.hanging:
            await self._quit.wait()
        answers = {"rkllama": self._rkllama, "legacy": self._legacy, "openai": self._openai}
        play = answers.get(self.kind)
        if play is None:
            return web.json_response({"detail": "not found"}, status=404)
        return await play(request, request.path, body)

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
        if path == "/api/ps":
            return web.json_response({"models": [{"name": m} for m in self.loaded]})
        if path == "/load_model":
            return self._load(name, many=True)
        if path == "/unload_model":
            if name not in self.loaded:
                return _error(f"No model {name} are currently loaded.", 400)
            self.loaded.remove(name)
            self._dead.discard(name)
            self._held_back.clear()
            return web.json_response({"message": f"Model {name} successfully unloaded!"})
        if path == "/api/chat":
            return await self._chat(request, body)
        return _error("not found", 404)

    def _load(self, name: str, many: bool) -> web.StreamResponse:
        fault = self._take("load_refused", "load_500_html")
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
        return web.json_response({"message": f"Model {name} loaded successfully."})

    async def _chat(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        model = body["model"]
        if model not in self.models:
            return _error(f"Failed to load model '{model}'", 500)
        if model not in self.loaded:
            self.loaded.append(model)
        if model in self._dead:
            await self._quit.wait()  # the worker is gone; the server waits for it

        def event(text: str) -> bytes:
            message = {"role": "assistant", "content": text}
            return _line({"model": model, "message": message, "done": False})

        def last(count: int) -> bytes:
            message = {"role": "assistant", "content": ""}
            ended = {"done": True, "done_reason": "stop", "prompt_eval_count": 9}
            return _line({"model": model, "message": message, "eval_count": count} | ended)

        limit = int(body.get("options", {}).get("num_predict", 1024))
        try:
            return await self._stream(request, "application/x-ndjson", event, last, limit)
        except (ConnectionError, asyncio.CancelledError):
            self._dead.add(model)
            raise

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

        def event(text: str) -> bytes:
            return _sse({"choices": [{"delta": {"content": text}, "finish_reason": None}]})

        def last(count: int) -> bytes:
            stop = _sse({"choices": [{"delta": {}, "finish_reason": "stop"}]})
            usage = _sse({"choices": [], "usage": {"completion_tokens": count}})
            return stop + usage + b"data: [DONE]\n\n"

        limit = int(body.get("max_tokens", 1024))
        return await self._stream(request, "text/event-stream", event, last, limit)

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
        if not body.get("stream"):
            self._buffer.extend(["OK", "."])
            text = "".join(self._buffer)
            self._buffer.clear()
            return web.json_response(_legacy_event(text, 2))
        count = 0

        def event(text: str) -> bytes:
            nonlocal count
            count += 1
            return _line(_legacy_event(text, count)) + b"\n"

        self._held_back = list(self._buffer)  # what an earlier answer left opens this one
        self._buffer.clear()
        return await self._stream(request, "text/plain", event, lambda _: b"", 2048)

    # --- all ---------------------------------------------------------------------------------

    def _take(self, *faults: str) -> str:
        """The fault, if it is one of these; it happens once."""
        if self.fault not in faults:
            return ""
        taken, self.fault = self.fault, ""
        return taken

    def _pieces(self) -> list[str]:
        pieces = self._answers.popleft() if self._answers else list(self.default_answer)
        left, self._held_back = self._held_back, []
        return left + pieces

    async def _stream(
        self,
        request: web.Request,
        content_type: str,
        event: Callable[[str], bytes],
        last: Callable[[int], bytes],
        limit: int,
    ) -> web.StreamResponse:
        fault = self._take(
            "empty", "zero_counts", "task_error", "timeout_sentence", "cut", "silence", "pad",
            "no_final", "lost_last_chunk",
        )  # fmt: skip
        pieces = _faulty(fault, self._pieces())
        if fault == "lost_last_chunk":
            self._held_back = [pieces.pop()]
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        self._running += 1
        self.max_concurrent = max(self.max_concurrent, self._running)
        sent = 0
        try:
            for n, piece in enumerate(pieces):
                if self.tokens_per_second:
                    await asyncio.sleep(1 / self.tokens_per_second)
                if fault == "cut" and n == len(pieces) // 2:
                    return _cut(request, response)
                if fault == "silence" and n == len(pieces) // 2:
                    await self._quit.wait()
                await response.write(event(piece))
                sent += 1
            if fault == "task_error":
                return _cut(request, response)
            if fault != "no_final":
                zero = fault in ("zero_counts", "timeout_sentence")
                special = {"lost_last_chunk": limit, "empty": 5}
                await response.write(last(0 if zero else special.get(fault, sent)))
            await response.write_eof()
            return response
        except (ConnectionError, asyncio.CancelledError):
            if self.kind == "legacy":
                self._buffer.extend(pieces[sent:])
            raise
        finally:
            self._running -= 1


def _faulty(fault: str, pieces: list[str]) -> list[str]:
    return {
        "empty": [],
        "task_error": [*pieces[:2], "<RKLLM_TASK_ERROR>"],
        "timeout_sentence": ["Aborted inference by Timeout (300 seconds). Try again."],
        "pad": ["[PAD151935]"] * 20,
    }.get(fault, pieces)


def _cut(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Drop the connection without the end of the chunked body."""
    if request.transport is not None:
        request.transport.abort()
    return response


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
    parser.add_argument("--pieces", nargs="+", default=DEFAULT, help="the answer")
    parser.add_argument("--times", type=int, default=1, help="how often the pieces are repeated")
    arguments = parser.parse_args()
    server = FakeServer(arguments.kind, arguments.model)
    server.default_answer = arguments.pieces * arguments.times
    server.tokens_per_second = arguments.tokens_per_second
    print(server.start().url, flush=True)
    server.wait()


if __name__ == "__main__":
    main()
