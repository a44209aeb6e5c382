"""A stand-in for the RKLLM servers, with their faults: it runs in a thread of its own.

By hand: python server.py --kind rkllama --model Qwen2.5-1.5B-Instruct --tokens-per-second 8
"""

import argparse
import asyncio
import json
import re
import signal
import threading
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import contextmanager
from typing import Any

from aiohttp import web

DEFAULT_ANSWER = "Hello from the NPU: this is the answer."
TASK_ERROR = "<RKLLM_TASK_ERROR>"
ABORTED = "Aborted inference by Timeout (300 seconds). Try again."
PAD = "[PAD151935]"
LOAD_FAULTS = ("load_refused", "load_500_html")
ANSWER_FAULTS = (
    "empty",
    "zero_counts",
    "task_error",
    "timeout_sentence",
    "cut",
    "silence",
    "pad",
    "no_final",
    "lost_last_chunk",
)
PROMPT_TOKENS = 21
LONGEST_WAIT = 60.0  # nothing in here waits longer


def pieces(text: str) -> list[str]:
    """Text as the chunks of a stream, about one a word; joined they are the text."""
    return re.findall(r"\s*\S+|\s+$", text)


class Broken(Exception):
    """The connection is to be dropped."""


class FakeServer:
    """Plays one kind of server: 'rkllama', 'legacy', 'openai' or 'unknown'.

    fault: one of LOAD_FAULTS or ANSWER_FAULTS, for the next load or answer only, unless sticky.
    tokens_per_second: None answers as fast as it can.
    """

    def __init__(
        self,
        kind: str = "rkllama",
        models: Iterable[str] = ("Qwen2.5-1.5B-Instruct",),
        *,
        tokens_per_second: float | None = None,
        default: str | list[str] = DEFAULT_ANSWER,
        port: int = 0,
    ) -> None:
        self.kind = kind
        self.models = list(models)
        self.tokens_per_second = tokens_per_second
        self.default = default
        self.port = port
        self.fault: str | None = None
        self.sticky = False
        self.loaded: list[str] = []
        self.calls: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.concurrent = 0
        self.max_concurrent = 0
        self.abandoned = 0
        self.url = ""
        self._answers: deque[list[str]] = deque()
        self._legacy_text: deque[str] = deque()  # one for all requests, as in the server
        self._running: list[_LegacyRun] = []
        self._lost: dict[str, list[str]] = {}
        self._dead: set[str] = set()
        self._turns: dict[str, asyncio.Lock] = {}
        self._released = threading.Event()
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._runner: web.AppRunner | None = None
        self._thread: threading.Thread | None = None

    # What a test calls; none of it is async.

    def start(self) -> "FakeServer":
        """Listen; the address is in url."""
        self._thread = threading.Thread(target=self._main, name="fake-server", daemon=True)
        self._thread.start()
        if not self._ready.wait(10) or self._failed:
            raise RuntimeError(f"The fake server did not start: {self._failed}")
        return self

    def stop(self) -> None:
        """Drop every connection and end the thread, in bounded time."""
        self._released.set()
        if self._loop is not None and self._stop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join(5)

    def __enter__(self) -> "FakeServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def script(self, *answers: str | list[str]) -> None:
        """The next answers; a list gives the chunks themselves."""
        for answer in answers:
            self._answers.append(pieces(answer) if isinstance(answer, str) else list(answer))

    def release(self) -> None:
        """Let a stream that fell silent go on."""
        self._released.set()

    @property
    def chat_requests(self) -> list[list[dict[str, str]]]:
        """The messages of every request for an answer, in order."""
        return [body["messages"] for body in self.requests if "messages" in body]

    @property
    def open_connections(self) -> int:
        """How many clients are connected now."""
        server = self._runner.server if self._runner else None
        return len(server.connections) if server else 0

    def wait_idle(self, seconds: float = 5.0) -> bool:
        """Wait until no answer runs and no client is connected; False if that takes too long."""
        end = time.monotonic() + seconds
        while self.concurrent or self.open_connections:
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        return True

    # The thread.

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # start() hands it on
            self._failed = error
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._runner = web.AppRunner(
            self._app(), handler_cancellation=True, shutdown_timeout=0.05, access_log=None
        )
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, "127.0.0.1", self.port)
            await site.start()
            self.port = self._runner.addresses[0][1]
            self.url = f"http://127.0.0.1:{self.port}"
            self._ready.set()
            await self._stop.wait()
        finally:
            for run in self._running:
                run.task.cancel()
            await self._runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 2**20, middlewares=[_middleware(self)])
        routes: dict[str, list[tuple[str, str, _Handler]]] = {
            "rkllama": [
                ("GET", "/", self._rkllama_root),
                ("GET", "/api/version", self._rkllama_version),
                ("GET", "/models", self._list_models),
                ("GET", "/api/tags", self._rkllama_tags),
                ("GET", "/api/ps", self._rkllama_ps),
                ("POST", "/load_model", self._rkllama_load),
                ("POST", "/unload_model", self._rkllama_unload),
                ("POST", "/api/chat", self._rkllama_chat),
                ("GET", "/v1/models", self._openai_models),
            ],
            "legacy": [
                ("GET", "/", self._legacy_root),
                ("GET", "/models", self._list_models),
                ("GET", "/current_model", self._legacy_current),
                ("POST", "/load_model", self._legacy_load),
                ("POST", "/unload_model", self._legacy_unload),
                ("POST", "/generate", self._legacy_generate),
            ],
            "openai": [
                ("GET", "/v1/models", self._openai_models),
                ("POST", "/v1/chat/completions", self._openai_chat),
            ],
            "unknown": [("GET", "/", self._unknown_root)],
        }
        for method, path, handler in routes[self.kind]:
            app.router.add_route(method, path, handler)
        return app

    # Shared by the three.

    def _take(self, faults: tuple[str, ...]) -> str | None:
        fault = self.fault
        if fault not in faults:
            return None
        if not self.sticky:
            self.fault = None
        return fault

    def _next_chunks(self, fault: str | None) -> list[str]:
        if fault == "empty":
            return []
        if fault == "pad":
            return [PAD] * 5
        if fault == "task_error":
            return [TASK_ERROR]
        if fault == "timeout_sentence":
            return [ABORTED]
        if self._answers:
            return self._answers.popleft()
        return pieces(self.default) if isinstance(self.default, str) else list(self.default)

    @contextmanager
    def _counted(self) -> Any:
        self.concurrent += 1
        self.max_concurrent = max(self.max_concurrent, self.concurrent)
        try:
            yield
        finally:
            self.concurrent -= 1

    async def _pace(self) -> None:
        speed = self.tokens_per_second
        await asyncio.sleep(1 / speed if speed else 0)

    async def _until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + LONGEST_WAIT
        while not true() and time.monotonic() < end:
            await asyncio.sleep(0.002)

    async def _paced(self, chunks: list[str], fault: str | None) -> AsyncIterator[str]:
        """The chunks at the set speed, with what can go wrong in the middle of an answer."""
        if fault == "silence":
            self._released.clear()
        middle = len(chunks) // 2
        for i, chunk in enumerate(chunks):
            if i == middle and fault == "cut":
                raise Broken
            if i == middle and fault == "silence":
                await self._until(self._released.is_set)
            await self._pace()
            yield chunk
        if fault == "task_error":
            raise Broken

    def _loads(self) -> web.Response | None:
        fault = self._take(LOAD_FAULTS)
        if fault == "load_500_html":
            return _html(500, "Internal Server Error")
        if fault == "load_refused":
            return _json({"error": "Failed to initialize RKLLM model: -1"}, 400)
        return None

    async def _list_models(self, request: web.Request) -> web.Response:
        return _json({"models": self.models})

    async def _stream(
        self, request: web.Request, content_type: str, lines: AsyncIterator[str]
    ) -> web.StreamResponse:
        """Send the lines as they come; notes a client that left before the end."""
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        complete = False
        try:
            async for line in lines:
                await response.write(line.encode())
            complete = True
            await response.write_eof()
        except Broken:
            complete = True
            if request.transport is not None:
                request.transport.close()
        except ConnectionError:
            pass
        finally:
            if not complete:
                self.abandoned += 1
                self._left(request)
        return response

    def _left(self, request: web.Request) -> None:
        """A client closed a stream early."""
        if self.kind == "rkllama":
            self._dead.add(request["model"])

    # rkllama

    async def _rkllama_root(self, request: web.Request) -> web.Response:
        return _json({"message": "Welcome to RKLLama with Ollama API compatibility!"})

    async def _rkllama_version(self, request: web.Request) -> web.Response:
        return _json({"version": "0.0.74"})

    async def _rkllama_tags(self, request: web.Request) -> web.Response:
        return _json({"models": [{"name": name, "model": name} for name in self.models]})

    async def _rkllama_ps(self, request: web.Request) -> web.Response:
        return _json({"models": [{"name": name, "model": name} for name in self.loaded]})

    async def _rkllama_load(self, request: web.Request) -> web.Response:
        name = (await request.json()).get("model_name")
        if name is None:
            return _json({"error": "Please enter the name of the model to be loaded."}, 400)
        if name in self.loaded:
            return _json({"error": "A model is already loaded. Nothing to do."})
        if name not in self.models:
            return _json({"error": f"Model directory '{name}' not found."}, 400)
        if failed := self._loads():
            return failed
        self.loaded.append(name)
        return _json({"message": f"Model {name} loaded successfully."})

    async def _rkllama_unload(self, request: web.Request) -> web.Response:
        name = (await request.json()).get("model_name")
        if name is None:
            return _json({"error": "Please enter the name of the model to be unloaded."}, 400)
        if name not in self.loaded:
            return _json({"error": f"No model {name} are currently loaded."}, 400)
        self.loaded.remove(name)
        self._dead.discard(name)
        self._lost.pop(name, None)
        return _json({"message": f"Model {name} successfully unloaded!"})

    async def _rkllama_chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        name = body.get("model")
        if name not in self.models:
            return _json({"error": f"Model '{name}' not found"}, 500)
        if name not in self.loaded:
            self.loaded.append(name)  # by itself, on first use
        request["model"] = name
        async with self._turns.setdefault(name, asyncio.Lock()):
            await self._until(lambda: name not in self._dead)
            with self._counted():
                if body.get("stream", True):
                    events = self._rkllama_events(body)
                    return await self._stream(request, "application/x-ndjson", events)
                answer = [json.loads(line) async for line in self._rkllama_events(body)]
                text = "".join(event["message"]["content"] for event in answer)
                return _json({**answer[-1], "message": {"role": "assistant", "content": text}})

    async def _rkllama_events(self, body: dict[str, Any]) -> AsyncIterator[str]:
        name, fault = body["model"], self._take(ANSWER_FAULTS)
        chunks = self._next_chunks(fault)[: body.get("options", {}).get("num_predict")]
        count = 0 if fault in ("zero_counts", "timeout_sentence") else len(chunks)
        chunks = self._with_lost(name, chunks, fault)
        event: dict[str, Any] = {"model": name, "created_at": "2026-01-01T00:00:00Z"}
        async for chunk in self._paced(chunks, fault):
            message = {"role": "assistant", "content": chunk}
            yield json.dumps({**event, "message": message, "done": False}) + "\n"
        if fault == "no_final":
            return
        event |= {"message": {"role": "assistant", "content": ""}, "done": True}
        event |= {"done_reason": "stop", "prompt_eval_count": PROMPT_TOKENS, "eval_count": count}
        yield json.dumps({**event, "eval_duration": 1}) + "\n"

    def _with_lost(self, name: str, chunks: list[str], fault: str | None) -> list[str]:
        """The answer, opened by the last one's lost end, and without its own if that is lost."""
        chunks = self._lost.pop(name, []) + chunks
        if fault == "lost_last_chunk":
            self._lost[name] = chunks[-1:]
            chunks = chunks[:-1]
        return chunks

    # legacy

    async def _legacy_root(self, request: web.Request) -> web.Response:
        return _json({"message": "Welcome to RKLLama !"})

    async def _legacy_current(self, request: web.Request) -> web.Response:
        if self.loaded:
            return _json({"model_name": self.loaded[0]})
        return _json({"error": "No models are currently loaded."}, 404)

    async def _legacy_load(self, request: web.Request) -> web.Response:
        name = (await request.json()).get("model_name")
        if self.loaded:
            return _json({"error": "A model is already loaded. Please unload it first."}, 400)
        if name not in self.models:
            return _json({"error": f"Model directory '{name}' not found."}, 400)
        if failed := self._loads():
            return failed
        self.loaded = [name]
        return _json({"message": f"Model {name} loaded successfully."})

    async def _legacy_unload(self, request: web.Request) -> web.Response:
        if not self.loaded:
            return _json({"error": "No models are currently loaded."}, 400)
        for run in self._running:
            run.flush = True  # the text stays in the buffer, whatever becomes of the model
        self.loaded = []
        return _json({"message": "Model successfully unloaded!"})

    async def _legacy_generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if not self.loaded:
            return _json({"error": "No models are currently loaded."}, 400)
        # The server's own system message comes first, and roles must alternate.
        roles = ["system"] + [message["role"] for message in body["messages"]]
        if any(one == two for one, two in zip(roles, roles[1:], strict=False)) or (
            "system" in roles[1:]
        ):
            return _html(500, "Internal Server Error")
        if body.get("stream"):
            return await self._stream(request, "text/plain", self._legacy_events(body))
        async with self._turns.setdefault("", asyncio.Lock()):
            run = self._legacy_run(body)
            text = ""
            while not run.task.done() or self._legacy_text:
                while self._legacy_text:
                    text += self._legacy_text.popleft()
                await asyncio.sleep(0.001)
            count = 0 if run.fault == "zero_counts" else len(pieces(text))
            return _json(_legacy_object(text, count, "stop"))

    def _legacy_run(self, body: dict[str, Any]) -> "_LegacyRun":
        """Start the runtime: it fills the buffer to its end, whether anybody reads or not."""
        fault = self._take(ANSWER_FAULTS)
        run = _LegacyRun(fault, self._next_chunks(fault))
        run.task = asyncio.ensure_future(self._legacy_produce(run))
        self._running.append(run)
        return run

    async def _legacy_produce(self, run: "_LegacyRun") -> None:
        with self._counted():
            try:
                for chunk in run.chunks:
                    if not run.flush:
                        await self._pace()
                    self._legacy_text.append(chunk)
            finally:
                self._running.remove(run)

    async def _legacy_events(self, body: dict[str, Any]) -> AsyncIterator[str]:
        run = self._legacy_run(body)
        if run.fault == "silence":
            self._released.clear()
        middle, count = len(run.chunks) // 2, 0
        kept = run.chunks[-1:] if run.fault == "lost_last_chunk" else []
        while not run.task.done() or self._legacy_text:
            while self._legacy_text:
                if kept and run.task.done() and list(self._legacy_text) == kept:
                    return  # the server looks away too early: it opens the next answer
                if count == middle and run.fault == "cut":
                    raise Broken
                if count == middle and run.fault == "silence":
                    await self._until(self._released.is_set)
                if kept and not run.task.done() and len(self._legacy_text) == 1:
                    break
                count += 1
                shown = 0 if run.fault in ("zero_counts", "timeout_sentence") else count
                chunk = self._legacy_text.popleft()
                yield json.dumps(_legacy_object(chunk, shown, None)) + "\n\n"
            await asyncio.sleep(0.001)
        if run.fault == "task_error":
            raise Broken

    # OpenAI

    async def _openai_models(self, request: web.Request) -> web.Response:
        data = [{"id": name, "object": "model", "owned_by": "me"} for name in self.models]
        return _json({"object": "list", "data": data})

    async def _openai_chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        name = body.get("model")
        if name not in self.models:
            error = {"message": f"The model `{name}` does not exist.", "code": 404}
            return _json({"error": error}, 404)
        request["model"] = name
        with self._counted():
            if body.get("stream"):
                events = self._openai_events(body)
                return await self._stream(request, "text/event-stream", events)
            text = "".join([chunk async for chunk in self._paced(self._next_chunks(None), None)])
            message = {"role": "assistant", "content": text}
            return _json({"choices": [{"message": message, "finish_reason": "stop"}]})

    async def _openai_events(self, body: dict[str, Any]) -> AsyncIterator[str]:
        name, fault = body["model"], self._take(ANSWER_FAULTS)
        whole = self._next_chunks(fault)
        chunks = whole[: body.get("max_tokens")]
        reason = "stop" if len(chunks) == len(whole) else "length"
        count = 0 if fault in ("zero_counts", "timeout_sentence") else len(chunks)
        yield _sse(name, [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}])
        async for chunk in self._paced(self._with_lost(name, chunks, fault), fault):
            yield _sse(name, [{"index": 0, "delta": {"content": chunk}, "finish_reason": None}])
        if fault == "no_final":
            return
        yield _sse(name, [{"index": 0, "delta": {}, "finish_reason": reason}])
        usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": count}
        yield _sse(name, [], usage={**usage, "total_tokens": PROMPT_TOKENS + count})
        yield "data: [DONE]\n\n"

    # something else altogether

    async def _unknown_root(self, request: web.Request) -> web.Response:
        return _html(200, "It works!")


class _LegacyRun:
    """One generation of the legacy server's runtime."""

    task: "asyncio.Future[None]"

    def __init__(self, fault: str | None, chunks: list[str]) -> None:
        self.fault = fault
        self.chunks = chunks
        self.flush = False


_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _middleware(server: FakeServer) -> Any:
    @web.middleware
    async def middleware(request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Notes the call; closes the connection after it; says 404 as the real ones do."""
        server.calls.append(f"{request.method} {request.path}")
        try:
            if request.method == "POST":
                server.requests.append(await request.json())
            return await handler(request)
        except web.HTTPException as error:
            if server.kind == "openai":
                return _json({"detail": "Not Found"}, error.status)
            return _html(error.status, error.reason)
        except ValueError:
            if server.kind == "legacy":
                return _html(400, "Bad Request")
            return _json({"error": "Expecting value: line 1 column 1 (char 0)"}, 500)
        except Broken:
            if request.transport is not None:
                request.transport.close()
            return _html(500, "Internal Server Error")

    return middleware


def _json(data: object, status: int = 200) -> web.Response:
    return web.json_response(data, status=status, headers={"Connection": "close"})


def _html(status: int, title: str) -> web.Response:
    page = (
        f"<!doctype html>\n<html lang=en>\n<title>{status} {title}</title>\n"
        f"<h1>{title}</h1>\n<p>The server can&#39;t help.</p>\n"
    )
    headers = {"Connection": "close"}
    return web.Response(status=status, text=page, content_type="text/html", headers=headers)


def _legacy_object(text: str, count: int, finish_reason: str | None) -> dict[str, Any]:
    choice = {"role": "assistant", "content": text, "logprobs": None}
    return {
        "id": "rkllm_chat",
        "object": "rkllm_chat",
        "created": None,
        "choices": [{**choice, "finish_reason": finish_reason}],
        "usage": {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": count,
            "total_tokens": PROMPT_TOKENS + count,
            "tokens_per_second": 8.0,
        },
    }


def _sse(model: str, choices: list[dict[str, Any]], **more: object) -> str:
    event = {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": "chat.completion.chunk"}
    return f"data: {json.dumps({**event, 'model': model, 'choices': choices, **more})}\n\n"


def main() -> None:
    """Run a server until it is interrupted."""
    parser = argparse.ArgumentParser(description="A stand-in for an RKLLM server.")
    kinds = ("rkllama", "legacy", "openai", "unknown")
    parser.add_argument("--kind", choices=kinds, default="rkllama")
    parser.add_argument("--model", action="append", help="a model it has; may be repeated")
    parser.add_argument("--tokens-per-second", type=float)
    parser.add_argument("--answer", default=DEFAULT_ANSWER)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    server = FakeServer(
        given.kind,
        given.model or ["Qwen2.5-1.5B-Instruct"],
        tokens_per_second=given.tokens_per_second,
        default=given.answer,
        port=given.port,
    )
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with server:
        print(server.url, flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
