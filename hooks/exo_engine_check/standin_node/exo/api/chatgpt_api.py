"""The API that answers clients, and its faults. Without a web server: a request is `json()`."""

import asyncio
import json
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from exo.models import build_base_shard


@dataclass
class Message:
    """One message. exo's fault: tool calls and names of what the client sent are not in it."""

    role: str
    content: Any

    def to_dict(self) -> dict[str, Any]:
        """What the chat template gets."""
        return {"role": self.role, "content": self.content}


@dataclass
class ChatCompletionRequest:
    """What a client asks for."""

    model: str
    messages: list[Message]
    tools: list[dict[str, Any]] | None = None


class Response:
    """What a client gets: an event at a time where it streams, else a whole body."""

    def __init__(self, status: int = 200, body: Any = None) -> None:
        self.status = status
        self.body = body
        self.prepared = False
        self.events: list[dict[str, Any]] = []

    def set_status(self, status: int) -> None:
        """Change the status of a response that is not on its way."""
        assert not self.prepared, "the status is sent"
        self.status = status


def generate_completion(
    chat_request: ChatCompletionRequest,
    tokenizer: Any,
    prompt: str,
    request_id: str,
    tokens: list[int],
    stream: bool,
    finish_reason: str | None,
    object_type: str,
) -> dict[str, Any]:
    """One event, or a whole answer. exo's fault: it decodes each event's ids by themselves."""
    content = tokenizer.decode(tokens)
    key = "delta" if stream else "message"
    choice = {"index": 0, "finish_reason": finish_reason, "logprobs": None}
    choice |= {"message": {"role": "assistant", "content": content}}
    choice |= {key: {"role": "assistant", "content": content}}
    made = {"id": f"chatcmpl-{request_id}", "object": object_type, "created": int(time.time())}
    made |= {"model": chat_request.model, "choices": [choice]}
    if not stream:
        prompt_tokens = len(tokenizer.encode(prompt))
        made["usage"] = {"prompt_tokens": prompt_tokens, "completion_tokens": len(tokens)}
    return made


class ChatGPTAPI:
    """Answers chat completions of one node. exo's fault: no node hears of a client that is gone."""

    def __init__(
        self,
        node: Any,
        engine_class: str,
        tokenizer: Any,
        response_timeout: float = 5.0,
        on_chat_completion_request: Callable[[str, ChatCompletionRequest, str], None] | None = None,
        system_prompt: str | None = None,
    ) -> None:
        self.node = node
        self.inference_engine_classname = engine_class
        self.tokenizer = tokenizer
        self.response_timeout = response_timeout
        self.on_chat_completion_request = on_chat_completion_request
        self.system_prompt = system_prompt
        self.token_queues: defaultdict[str, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)
        self.on_token = node.on_token.register("chatgpt-api-token-handler")
        self.on_token.on_next(self._hear)
        self._tasks: set[asyncio.Task[None]] = set()

    def _hear(self, request_id: str, tokens: list[int], finished: bool) -> None:
        self.token_queues[request_id].put_nowait((tokens, finished))

    async def handle_post_chat_completions(self, request: Any) -> Response:
        """Answer; every error is HTTP 500."""
        data = await request.json()
        messages = [Message(m["role"], m["content"]) for m in data["messages"]]
        chat = ChatCompletionRequest(data["model"], messages, data.get("tools"))
        shard = build_base_shard(chat.model, self.inference_engine_classname)
        if self.system_prompt and not any(m.role == "system" for m in chat.messages):
            chat.messages.insert(0, Message("system", self.system_prompt))
        prompt = chat.messages[-1].content  # the toy has no chat template
        request_id = str(uuid.uuid4())
        if self.on_chat_completion_request:
            with suppress(Exception):  # exo's fault: what it raises is said to nobody
                self.on_chat_completion_request(request_id, chat, prompt)
        try:
            work = asyncio.ensure_future(
                self.node.process_prompt(shard, prompt, request_id=request_id)
            )
            await asyncio.wait_for(asyncio.shield(work), self.response_timeout)
            answer = self._stream if data.get("stream") else self._whole
            return await answer(chat, prompt, request_id, request)
        except Exception as error:
            return Response(500, {"detail": f"Error processing prompt: {error}"})

    async def _next(self, request_id: str) -> tuple[list[int], bool]:
        event: tuple[list[int], bool] = await asyncio.wait_for(
            self.token_queues[request_id].get(), self.response_timeout
        )
        return event

    async def _stream(
        self, chat: ChatCompletionRequest, prompt: str, request_id: str, request: Any
    ) -> Response:
        response = Response()
        response.prepared = True
        try:
            while True:
                ids, finished = await self._next(request_id)
                ended = "stop" if ids[-1] == (self.tokenizer.eos_token_id or None) else "length"
                event = generate_completion(
                    *(chat, self.tokenizer, prompt, request_id, ids, True),
                    ended if finished else None,
                    "chat.completion",
                )
                request.write(json.dumps(event))
                response.events.append(event)
                if finished:
                    return response
        finally:
            self.token_queues.pop(request_id, None)

    async def _whole(
        self, chat: ChatCompletionRequest, prompt: str, request_id: str, _: Any
    ) -> Response:
        ids: list[int] = []
        finished = False
        while not finished:
            more, finished = await self._next(request_id)
            ids += more
        ended = "stop" if ids[-1] == (self.tokenizer.eos_token_id or None) else "length"
        made = generate_completion(
            *(chat, self.tokenizer, prompt, request_id, ids, False), ended, "chat.completion"
        )
        return Response(200, made)
