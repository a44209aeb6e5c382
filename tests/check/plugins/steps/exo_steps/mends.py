"""What exo's node gets wrong for plugins, mended from here."""

import asyncio
import functools
import sys
from contextvars import ContextVar
from typing import Any

from .models import MODELS

_asked: ContextVar[list[str] | None] = ContextVar("asked", default=None)


def mend(node_class: Any, engine_class: type) -> None:
    """Once for a class."""
    for name in ("exo.main", "exo.api.chatgpt_api"):
        if hasattr(module := sys.modules.get(name), "shutdown"):
            end_all(module, engine_class)
    if getattr(node_class, "mended_by_steps", False):
        return
    node_class.mended_by_steps = True
    keep_engine(node_class, engine_class)
    hear_ends(node_class, engine_class)
    end_failed(node_class, engine_class)
    end_cut(node_class, engine_class)
    end_orphans(node_class, engine_class)
    raise_first_errors(node_class, engine_class)
    refuse_other_layers(node_class, engine_class)
    one_look_at_a_time(node_class)
    if api := sys.modules.get("exo.api.chatgpt_api"):
        whole_text(api)
        notice_clients(api.ChatGPTAPI, engine_class)


async def end(node: Any, request_id: str) -> None:
    ids, ended = node.buffered_token_output.get(request_id, ([], False))
    if not ended:
        node.buffered_token_output[request_id] = (ids, True)
        node.trigger_on_token_callbacks(request_id, [32], True)
        await node.broadcast_result(request_id, [32], True)


def keep_engine(node_class: Any, engine_class: type) -> None:
    original = node_class.select_best_inference_engine

    async def select_best_inference_engine(self: Any) -> None:
        if not isinstance(self.inference_engine, engine_class):
            await original(self)

    node_class.select_best_inference_engine = select_best_inference_engine


def hear_ends(node_class: Any, engine_class: Any) -> None:
    original = node_class.__init__

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)

        def hear(request_id: str, _: Any, finished: bool) -> None:
            if finished and isinstance(self.inference_engine, engine_class):
                self.inference_engine.forget(request_id)

        self.on_token.register("exo_steps").on_next(hear)

    node_class.__init__ = __init__


def end_failed(node_class: Any, engine_class: Any) -> None:
    original = node_class._process_tensor

    async def _process_tensor(
        self: Any, base: Any, tensor: Any, request_id: Any = None, *rest: Any
    ) -> Any:
        engine = self.inference_engine
        ours = isinstance(engine, engine_class)
        if ours and self.buffered_token_output.get(request_id, ([], False))[1]:
            return None  # its client has gone
        result = await original(self, base, tensor, request_id, *rest)
        if ours and request_id in engine.failed:
            engine.failed.discard(request_id)
            await end(self, request_id)
        return result

    node_class._process_tensor = _process_tensor


def end_cut(node_class: Any, engine_class: Any) -> None:
    original = node_class.forward_tensor

    async def forward_tensor(
        self: Any, base: Any, tensor: Any, request_id: Any, *rest: Any
    ) -> None:
        try:
            await original(self, base, tensor, request_id, *rest)
        except Exception:
            if isinstance(self.inference_engine, engine_class):
                self.inference_engine.cut.add(request_id)
            await end(self, request_id)

    node_class.forward_tensor = forward_tensor


def end_orphans(node_class: Any, engine_class: Any) -> None:
    original = node_class.update_peers

    async def update_peers(self: Any, *args: Any, **kwargs: Any) -> bool:
        changed = bool(await original(self, *args, **kwargs))
        if changed and isinstance(self.inference_engine, engine_class):
            for request_id in list(self.inference_engine.requests):
                self.inference_engine.forget(request_id)
                await end(self, request_id)
        return changed

    node_class.update_peers = update_peers


def raise_first_errors(node_class: Any, engine_class: Any) -> None:
    original = node_class.process_prompt

    async def process_prompt(
        self: Any, base: Any, prompt: str, request_id: Any = None, *rest: Any, **named: Any
    ) -> Any:
        asked = _asked.get()
        if asked is None or not isinstance(self.inference_engine, engine_class):
            return await original(self, base, prompt, request_id, *rest, **named)
        asked.append(request_id)
        result = await original(self, base, prompt, request_id, *rest, **named)
        while not any(self.buffered_token_output.get(request_id, ([], False))):  # noqa: ASYNC110 - exo's list
            await asyncio.sleep(0.005)
        if request_id in self.inference_engine.cut:
            raise RuntimeError("the next node has gone. Send the request again")
        return result

    node_class.process_prompt = process_prompt


def whole_text(api: Any) -> None:
    original, told = api.generate_completion, {}

    def generate_completion(
        chat: Any, tokenizer: Any, prompt: str, request_id: str, tokens: Any, *rest: Any
    ) -> Any:
        done = original(chat, tokenizer, prompt, request_id, tokens, *rest)
        if chat.model in MODELS:
            ids = told.setdefault(request_id, [])
            before = tokenizer.decode(ids).rstrip("\ufffd")
            ids += [i for i in tokens if i != tokenizer.eos_token_id]
            text = tokenizer.decode(ids).rstrip("\ufffd")[len(before) :]
            for key in {"message", "delta"} & done["choices"][0].keys():
                done["choices"][0][key]["content"] = text
        return done

    api.generate_completion = generate_completion


def notice_clients(api_class: Any, engine_class: Any) -> None:
    original = api_class.handle_post_chat_completions

    async def watch(node: Any, request: Any, asked: list[str]) -> None:
        while not request.transport.is_closing():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.05)
        await leave(node, asked)

    async def leave(node: Any, asked: list[str]) -> None:
        for request_id in asked:
            node.inference_engine.forget(request_id)
            await end(node, request_id)

    async def handle_post_chat_completions(self: Any, request: Any) -> Any:
        if not isinstance(self.node.inference_engine, engine_class):
            return await original(self, request)
        asked: list[str] = []
        _asked.set(asked)
        watching = asyncio.ensure_future(watch(self.node, request, asked))
        try:
            return await original(self, request)
        finally:
            watching.cancel()
            await leave(self.node, asked)

    api_class.handle_post_chat_completions = handle_post_chat_completions


def end_all(main: Any, engine_class: Any) -> None:
    original = main.shutdown

    async def shutdown(signal: Any, loop: Any, server: Any) -> None:
        engine = server.node.inference_engine
        for request_id in list(engine.requests) if isinstance(engine, engine_class) else ():
            engine.forget(request_id)
            await end(server.node, request_id)
        await original(signal, loop, server)

    main.shutdown = shutdown


def refuse_other_layers(node_class: Any, engine_class: Any) -> None:
    original = node_class.process_tensor

    async def process_tensor(self: Any, base: Any, *rest: Any, **named: Any) -> None:
        if isinstance(self.inference_engine, engine_class) and self.get_current_shard(base) != base:
            raise RuntimeError("the cluster has just changed. Send the request again")
        await original(self, base, *rest, **named)

    node_class.process_tensor = process_tensor


def one_look_at_a_time(node_class: Any) -> None:
    original = node_class.collect_topology

    async def collect_topology(self: Any, *given: Any, **named: Any) -> Any:
        async with self.__dict__.setdefault("steps_lock", asyncio.Lock()):
            return await original(self, *given, **named)

    node_class.collect_topology = collect_topology
