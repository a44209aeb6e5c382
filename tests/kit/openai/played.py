"""Servers as their sources have them: each one's own stream, error and limit on the chat route.

What each sends was read in public: vLLM, SGLang, TGI, llama.cpp, llama-cpp-python, TensorRT-LLM,
LM Studio, Ollama and LiteLLM at their state of 2026.
"""

import json
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from fake_server import FakeServer
from hosting import Host

from exo_kit.kit.contract import Piece

TEXT = ("Hello ", "there, ", "日本 ", "😀.")
CONTEXT = 200  # tokens, of those that have a limit
PROMPT = 23  # tokens of the prompt, as the server counts them
Event = dict[str, Any]
Refusal = tuple[int, Any]


def data(*events: Event | str) -> list[bytes]:
    """Events as they are sent."""
    lines = (e if isinstance(e, str) else json.dumps(e, ensure_ascii=False) for e in events)
    return [f"data: {event}\n\n".encode() for event in lines]


def chunk(delta: Any, finish: str | None = None, **more: Any) -> Event:
    """One event of a chat."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [choice],
    }


def usage(completion: int = len(TEXT), **more: Any) -> Event:
    """A server's counts."""
    return {"prompt_tokens": PROMPT, "completion_tokens": completion, **more}


def counted(body: Event) -> list[Event]:
    """The event with the counts, where it was asked for."""
    with_usage = (body.get("stream_options") or {}).get("include_usage")
    return (
        [{"object": "chat.completion.chunk", "choices": [], "usage": usage()}] if with_usage else []
    )


def openai_stream(body: Event) -> list[bytes]:
    """The stream that most of them have."""
    texts = [chunk({"content": text}) for text in TEXT]
    first = chunk({"role": "assistant", "content": ""})
    return data(first, *texts, chunk({}, "stop"), *counted(body), "[DONE]")


def error(message: str, **more: Any) -> Event:
    """An error as OpenAI's API says it."""
    return {"error": {"message": message, **more}}


@dataclass(frozen=True)
class Kind:
    """owner: in /v1/models. broken: how a stream ends that fails in the middle, and words: what is
    said then. limit: its refusal of more tokens than its context leaves, given how many it was
    asked for. refuses: what else it refuses of a request.
    """

    owner: str
    broken: list[bytes]
    words: str
    limit: Callable[[int], Refusal] | None = None
    refuses: Callable[[Event], Refusal | None] = lambda _: None
    stream: Callable[[Event], list[bytes]] = openai_stream


def vllm_limit(most: int) -> Refusal:
    return 400, error(
        f"'max_tokens' or 'max_completion_tokens' is too large: {most}. This model's maximum "
        f"context length is {CONTEXT} tokens and your request has {PROMPT} input tokens "
        f"({most} > {CONTEXT} - {PROMPT}).",
        type="BadRequestError", param="max_tokens", code=400,
    )  # fmt: skip


def sglang_limit(most: int) -> Refusal:
    return 400, {
        "object": "error",
        "message": f"Requested token count exceeds the model's maximum context length of {CONTEXT} "
        f"tokens. You requested a total of {PROMPT + most} tokens: {PROMPT} tokens from the input "
        f"messages and {most} tokens for the completion. Please reduce the number of tokens.",
        "type": "BadRequestError", "param": None, "code": 400,
    }  # fmt: skip


def tgi_limit(most: int) -> Refusal:
    """It opens the stream before it looks at the prompt."""
    message = (
        f"Input validation error: `inputs` tokens + `max_new_tokens` must be <= {CONTEXT}. Given: "
        f"{PROMPT} `inputs` tokens and {most} `max_new_tokens`"
    )
    return 200, data(error(message, http_status_code=422))


def tgi_refuses(body: Event) -> Refusal | None:
    if not 0 < body.get("top_p", 0.5) < 1:
        message = "Input validation error: `top_p` must be > 0.0 and < 1.0"
        return 422, {"error": message, "error_type": "validation"}
    return None


def llama_cpp_python_limit(most: int) -> Refusal:
    return 400, error(
        f"This model's maximum context length is {CONTEXT} tokens. However, you requested "
        f"{PROMPT + most} tokens ({PROMPT} in the messages, {most} in the completion). Please "
        "reduce the length of the messages or completion.",
        type="invalid_request_error", param="messages", code="context_length_exceeded",
    )  # fmt: skip


def tensorrt_limit(most: int) -> Refusal:
    return 400, {
        "object": "error",
        "message": f"The sum of prompt length ({PROMPT}.0), query length (0) and max_tokens "
        f"({most}) should not exceed max_seq_len ({CONTEXT})",
        "type": "BadRequestError", "param": None, "code": 400,
    }  # fmt: skip


TENSORRT = {
    "model", "messages", "stream", "max_tokens", "temperature", "stream_options", "top_p", "seed",
}  # fmt: skip


def tensorrt_refuses(body: Event) -> Refusal | None:
    """pydantic's words, a field each."""
    extra = [
        {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}
        for name in sorted(body.keys() - TENSORRT)
    ]
    return (400, {"detail": extra}) if extra else None


def litellm_limit(most: int) -> Refusal:
    inner = vllm_limit(most)[1]["error"]["message"]
    message = (
        f"litellm.BadRequestError: Hosted_vllmException - {inner}. Received Model Group=qwen3-4b-"
        "2507\nAvailable Model Group Fallbacks=None"
    )
    return 400, error(message, type=None, param=None, code="400")


def ollama_stream(body: Event) -> list[bytes]:
    """Every event has the counts' member, and the last one no text."""
    texts = [chunk({"role": "assistant", "content": text}) for text in TEXT]
    return data(
        *texts, chunk({"role": "assistant", "content": ""}, "stop"), *counted(body), "[DONE]"
    )


def tgi_stream(body: Event) -> list[bytes]:
    """Without a space behind the field; the last event has a text."""
    *texts, last = (chunk({"role": "assistant", "content": t}) for t in TEXT)
    last["choices"][0]["finish_reason"] = "eos_token"
    return [e.replace(b"data: ", b"data:") for e in data(*texts, last, *counted(body), "[DONE]")]


KINDS: dict[str, Kind] = {
    "vllm": Kind(
        "vllm",
        data(
            error("EngineCore encountered an issue", type="InternalServerError", code=500), "[DONE]"
        ),
        "EngineCore encountered an issue",
        vllm_limit,
    ),
    "vllm before 0.11": Kind(
        "vllm",
        data({"object": "error", "message": "CUDA out of memory", "code": 400}, "[DONE]"),
        "CUDA out of memory",
        vllm_limit,
    ),
    "sglang": Kind(
        "sglang",
        data(error("the scheduler is gone", object="error", code=503), "[DONE]"),
        "the scheduler is gone",
        sglang_limit,
    ),
    "tgi": Kind(
        "HuggingFaceTB/SmolLM2",
        data({"error": "Request failed during generation: CANCELLED", "error_type": "generation"}),
        "Request failed during generation",
        tgi_limit,
        tgi_refuses,
        tgi_stream,
    ),
    "llama.cpp": Kind(
        "llamacpp",
        [b'error: {"code":500,"message":"context shift is disabled","type":"server_error"}\n\n'],
        "context shift is disabled",
    ),
    "llama-cpp-python": Kind("me", [], "stopped without its last event", llama_cpp_python_limit),
    "tensorrt-llm": Kind(
        "tensorrt_llm",
        data({"object": "error", "message": "executor shut down", "type": "InternalServerError"}),
        "executor shut down",
        tensorrt_limit,
        tensorrt_refuses,
    ),
    "lm studio": Kind(
        "organization_owner",
        [
            b'event: error\ndata: {"error":{"message":"Compute error."},"message":"Compute error."}'
            b"\n\n",
            b"data: [DONE]\n\n",
        ],
        "Compute error",
    ),
    "ollama": Kind(
        "library",
        data(error("llama runner process has terminated: exit status 2", type="api_error")),
        "llama runner process has terminated",
        stream=ollama_stream,
    ),
    "litellm": Kind(
        "openai",
        data(error("litellm.APIError: upstream", type="None", param="None", code="500"), "[DONE]"),
        "litellm.APIError: upstream",
        litellm_limit,
    ),
}


class PlayedServer(FakeServer):
    """Answers as a kind does. fails: the next stream breaks off in the middle, in its way."""

    def __init__(self, kind: Kind, model: str) -> None:
        super().__init__([model], TEXT)
        self.kind, self.fails = kind, False
        self.bodies: list[Event] = []

    async def play(self, request: web.Request, path: str, body: Event) -> web.StreamResponse:
        if path == "/v1/models":
            models = [{"id": name, "owned_by": self.kind.owner} for name in self.models]
            return web.json_response({"object": "list", "data": models})
        if path != "/v1/chat/completions":
            return web.json_response({"detail": "Not Found"}, status=404)
        self.bodies.append(body)
        refusal = self.kind.refuses(body)
        if refusal is None and self.kind.limit and PROMPT + body["max_tokens"] >= CONTEXT:
            refusal = self.kind.limit(body["max_tokens"])
        if refusal is not None and refusal[0] != 200:
            return web.json_response(refusal[1], status=refusal[0])
        events = self.kind.stream(body) if refusal is None else refusal[1]
        if self.fails:
            self.fails, events = False, events[:3] + self.kind.broken
        return await self.stream(request, "text/event-stream", events, b"")


async def whole(host: Host, request_id: str, most: int = 50, **more: Any) -> list[Piece]:
    """All pieces of one answer."""
    async with aclosing(host.pieces(request_id, most, **more)) as pieces:
        return [piece async for piece in pieces]
