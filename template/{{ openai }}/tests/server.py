"""A server that plays the kinds of OpenAI-compatible servers, with their faults.

python server.py --kind vllm --model SmolLM2-135M-Instruct --tokens-per-second 8
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiohttp import web
from fake_server import FakeServer
from tokenizers import Tokenizer
from tokenizers_for_tests import byte_level_bpe

ANSWER = ("Hello ", "there, ", "this ", "is ", "the ", "server.")
OWNERS = {
    "vllm": "vllm",
    "old-vllm": "vllm",
    "llama.cpp": "llamacpp",
    "sglang": "sglang",
    "tensorrt-llm": "tensorrt_llm",
    "openai": "somebody",
    "chat": "somebody",
}
FAULTS = (
    "cut", "silence", "no_final", "reset", "comments", "error_body", "error_event", "page",
    "two_eos", "no_eos", "split", "long_line", "empty",
)  # fmt: skip
TENSORRT_FIELDS = {
    "model", "prompt", "stream", "max_tokens", "temperature", "top_p", "stop_token_ids",
    "detokenize", "stream_options",
}  # fmt: skip


class OpenAIServer(FakeServer):
    """Plays one kind of server, with a tokenizer of its own; batches whatever it is asked.

    refusals: statuses for the next requests for an answer, each with its Retry-After or none.
    """

    def __init__(self, kind: str = "vllm", models: Sequence[str] = ("SmolLM2",)) -> None:
        super().__init__(models, ANSWER)
        self.kind = kind
        self.fast: Tokenizer | None = None
        self.eos = "<|im_end|>"
        self.key = ""
        self.context: int | None = 4096
        self.loading = 0  # so many replies say that the model is being loaded
        self.refusals: list[tuple[int, str]] = []
        self.answered: list[dict[str, Any]] = []  # what streams were asked
        self.keys: list[str] = []
        self.thinks = ""
        self.thinks_in = "reasoning_content"  # vLLM's newer name is "reasoning"
        self.cuts = 0  # streams whose client went away
        self.chunk = 1  # ids in an event

    async def play(
        self, request: web.Request, path: str, body: dict[str, Any]
    ) -> web.StreamResponse:
        """Answer as the kind does."""
        self.keys.append(request.headers.get("Authorization", ""))
        if self.key and self.keys[-1] != f"Bearer {self.key}":
            return error(f"Incorrect API key provided: {self.keys[-1]}", 401)
        if self.loading:
            self.loading -= 1
            return error("Loading model", 503)
        if self.kind == "unknown":
            return web.Response(status=404, text="<h1>Not Found</h1>", content_type="text/html")
        if path == "/v1/models":
            return web.json_response({"data": [self._model(m) for m in self.models]})
        if path == "/version" and self.kind in ("vllm", "old-vllm", "tensorrt-llm"):
            return web.json_response({"version": "1.2.3"})
        if path == "/get_server_info" and self.kind == "sglang":
            return web.json_response({"version": "0.5"})
        if path == "/props" and self.kind == "llama.cpp":
            return web.json_response({"default_generation_settings": {}, "build_info": "b9"})
        if path == "/tokenize" and self.kind in ("vllm", "llama.cpp", "sglang"):
            return web.json_response({"tokens": self.ids(body.get("prompt") or body["content"])})
        routes = {"/v1/completions"}
        routes |= {"/completion"} if self.kind == "llama.cpp" else set()
        routes |= {"/generate"} if self.kind == "sglang" else set()
        routes = {"/v1/chat/completions"} if self.kind == "chat" else routes
        routes |= {"/v1/chat/completions"} if body.get("tools") else set()
        if path in routes:
            return await self._answer(request, path, body)
        return error("not found", 404)

    def _model(self, name: str) -> dict[str, Any]:
        made: dict[str, Any] = {"id": name, "object": "model", "owned_by": OWNERS[self.kind]}
        if self.kind == "llama.cpp":
            return made | {"meta": {"n_ctx": self.context}}
        return made | {"max_model_len": self.context} if self.kind in ("vllm", "sglang") else made

    def ids(self, text: str) -> list[int]:
        """A text's ids by this server's tokenizer."""
        assert self.fast is not None
        ids: list[int] = self.fast.encode(text, add_special_tokens=False).ids
        return ids

    def _text_of(self, ids: list[int]) -> str:
        assert self.fast is not None
        return self.fast.decode(ids, skip_special_tokens=True)

    async def _answer(
        self, request: web.Request, path: str, body: dict[str, Any]
    ) -> web.StreamResponse:
        unknown = body.keys() - TENSORRT_FIELDS
        if self.kind == "tensorrt-llm" and unknown:
            return error(f"Extra inputs are not permitted: {sorted(unknown)}", 400)
        if not body.get("stream"):
            return web.json_response(
                {"choices": [], "usage": {"prompt_tokens": len(self.ids(body["prompt"]))}}
            )
        if self._is_probe(body):
            return await self._stream(request, path, body, self.ids("Hi you"), "")
        self.answered.append(body)
        if self.refusals:
            status, after = self.refusals.pop(0)
            reason = "maximum context length is 64 tokens" if status == 400 else "come again"
            return error(reason, status, **({"Retry-After": after} if after else {}))
        fault = self.take(*FAULTS)
        if fault == "error_body":
            return web.json_response({"error": {"message": "out of memory"}})
        if fault == "page":
            return web.Response(text="<h1>Log in</h1>", content_type="text/html")
        ids = self.ids("".join(self.next_answer()))
        return await self._stream(request, path, body, ids, fault)

    def _is_probe(self, body: dict[str, Any]) -> bool:
        """Whether the plugin asks how to speak, before any request of a host's."""
        return limit_of(body) in (2, 24)

    async def _stream(
        self, request: web.Request, path: str, body: dict[str, Any], ids: list[int], fault: str
    ) -> web.StreamResponse:
        limit = limit_of(body)
        finish, output = ("stop" if len(ids) <= limit else "length"), ids[:limit]
        end = self.ids(self.eos)
        if finish == "stop":
            output = output + end * {"no_eos": 0, "two_eos": 2}.get(fault, 1)
        events = self._events(path, body, output, finish)
        if fault == "comments":
            ping = b": ping\r\n\r\nevent: x\r\n"
            events = [ping + e.replace(b"\n\n", b"\r\n\r\n") for e in events]
        if fault == "error_event":
            events[len(events) // 2] = sse({"error": {"message": f"broken {self.key}"}})
        if fault == "long_line":
            events[1:1] = [b"data: {" + b" " * 10_000_000]
        if fault == "split":  # in the middle of characters too
            whole = b"".join(events)
            events = [whole[n : n + 7] for n in range(0, len(whole), 7)]
        last = b"data: [DONE]\n\n"
        if fault == "no_final":
            events = events[:-1]
        if fault == "empty":
            events, last = [], b""
        try:
            return await self.stream(request, "text/event-stream", events, last, fault)
        except (ConnectionError, asyncio.CancelledError):
            self.cuts += 1
            raise

    def _events(self, path: str, body: dict[str, Any], ids: list[int], finish: str) -> list[bytes]:
        answers: list[dict[str, Any]] = []
        sent = 0
        if path == "/v1/chat/completions" and self.thinks:
            answers.append(choice(delta={self.thinks_in: self.thinks}))
        for n in range(0, len(ids), self.chunk):
            new = ids[n : n + self.chunk]
            text = self._text_of(ids[: n + len(new)])
            whole = "" if text.endswith("\ufffd") else text[sent:]
            if path == "/completion":
                if text.endswith("\ufffd"):
                    continue  # the ids of half a character are lost
                count = n + len(new)
                answers.append({"content": whole, "tokens": new[-1:], "tokens_predicted": count})
            elif path == "/generate":
                meta = {"completion_tokens": n + len(new), "finish_reason": None}
                so_far = [5, *ids[: n + len(new)]]  # the prompt's last id before them
                answers.append({"text": text, "output_ids": so_far, "meta_info": meta})
            elif path == "/v1/chat/completions":
                answers.append(choice(delta={"content": whole}))
            else:
                answers.append(self._completion(body, new, whole))
            sent += len(whole)
        return [sse(e) for e in answers] + [self._last(path, len(ids), finish)]

    def _completion(self, body: dict[str, Any], ids: list[int], text: str) -> dict[str, Any]:
        if self.kind == "vllm" and body.get("return_token_ids"):
            extra = {"logprobs": logprobs(ids, body["logprobs"])} if "logprobs" in body else {}
            return choice(text=text, token_ids=ids, **extra)
        if self.kind == "old-vllm" and body.get("return_tokens_as_token_ids"):
            return choice(text=text, logprobs={"tokens": [f"token_id:{i}" for i in ids]})
        if self.kind == "tensorrt-llm" and body.get("detokenize") is False:
            return choice(text="", token_ids=ids)
        return choice(text=text)

    def _last(self, path: str, count: int, finish: str) -> bytes:
        if path == "/completion":
            kind = "limit" if finish == "length" else "eos"
            return sse({"content": "", "tokens": [], "stop": True, "stop_type": kind})
        if path == "/generate":
            meta = {"completion_tokens": count, "finish_reason": {"type": finish}}
            return sse({"output_ids": [], "meta_info": meta})
        return sse(choice(text="", delta={}, finish_reason=finish))


def choice(**members: Any) -> dict[str, Any]:
    """An event with one choice."""
    return {"choices": [{"index": 0, "finish_reason": None} | members]}


def logprobs(ids: list[int], most: int) -> dict[str, Any]:
    """vLLM's, of a server that is in no doubt."""
    names = [f"token_id:{i}" for i in ids]
    top = [{f"token_id:{i + n}": -float(n) for n in range(most)} for i in ids]
    return {"tokens": names, "token_logprobs": [0.0] * len(ids), "top_logprobs": top}


def limit_of(body: dict[str, Any]) -> int:
    """How many tokens a request asks for."""
    sampling = body.get("sampling_params", body)
    names = ("max_tokens", "max_new_tokens", "n_predict")
    return int(next(sampling[name] for name in names if name in sampling))


def sse(event: dict[str, Any]) -> bytes:
    """An event as it is sent; scripts stand in it as UTF-8."""
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"


def error(text: str, status: int, **headers: str) -> web.Response:
    """An error as OpenAI's API says it."""
    return web.json_response({"error": {"message": text}}, status=status, headers=headers)


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=OWNERS, default="vllm")
    parser.add_argument("--model", action="append", help="a model that it has; may be repeated")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json (default: a tiny one)")
    parser.add_argument("--tokens-per-second", type=float)
    parser.add_argument("--pieces", nargs="+", default=ANSWER, help="the answer")
    parser.add_argument("--times", type=int, default=1, help="how often the pieces are repeated")
    arguments = parser.parse_args()
    server = OpenAIServer(arguments.kind, arguments.model or ["SmolLM2-135M-Instruct"])
    with TemporaryDirectory() as folder:
        path = arguments.tokenizer
        server.fast = Tokenizer.from_file(str(path)) if path else byte_level_bpe(Path(folder))
    server.default_answer = list(arguments.pieces) * arguments.times
    server.tokens_per_second = arguments.tokens_per_second
    server.context = None
    print(server.start().url, flush=True)
    server.wait()


if __name__ == "__main__":
    main()
