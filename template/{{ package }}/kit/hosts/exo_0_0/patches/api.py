"""exo's API (api/chatgpt_api.py) and its clients: whole characters, errors, who goes away."""

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ....engine.thread import in_thread
from ....text.detokenizer import Detokenizer, byte_tokens, replaced_texts
from ....text.tokenizer import TokenizerError, refuse_unbounded
from ..node_state import (
    KEEP_SECONDS,
    AnswerError,
    AnswerState,
    End,
    NodeState,
    end_of,
    state_of,
    why,
)
from . import looks
from .looks import Function
from .messages import CALL, Call, hand_over
from .node import shielded
from .patch import patches
from .ring import fit, hold, lost

LOOK_SECONDS = 0.2  # how often a client's connection is looked at

_streams: dict[str, Detokenizer] = {}


@patches("exo.api.chatgpt_api:generate_completion", looks.shows_halves)
def whole_text(original: Function, engine_class: Any) -> Function:
    """Each token is decoded by itself, and the closing mark is shown (chatgpt_api.py:64-104)."""
    names = list(inspect.signature(original).parameters)

    def generate_completion(*args: Any, **named: Any) -> Any:
        arguments = dict(zip(names, args, strict=False)) | named
        if arguments["chat_request"].model not in engine_class.models:
            return original(*args, **named)
        end = end_of(arguments["request_id"])
        if end.error is not None and not arguments["stream"]:
            raise end.error  # exo makes HTTP 500 of it
        ids, finish = list(arguments["tokens"]), arguments["finish_reason"]
        if finish and ids and ids[-1] == arguments["tokenizer"].eos_token_id:
            # exo takes an id of 0 for none, and knows of no limit but its own.
            ids, finish = ids[:-1], "length" if end.cut else "stop"
        text = _text(arguments, ids, finish, end.error)
        completion = original(**(arguments | {"finish_reason": finish}))
        choice = completion["choices"][0]
        for key in {"message", "delta"} & choice.keys():
            choice[key]["content"] = text
        if "text" in choice:
            choice["text"] = text
        return completion

    return generate_completion


def _text(
    arguments: dict[str, Any], ids: list[int], finish: str | None, error: AnswerError | None
) -> str:
    """What an event, or a whole answer, shows; a limit within a character leaves it out."""
    request_id, tokenizer = arguments["request_id"], arguments["tokenizer"]
    stream = _streams.get(request_id)
    if stream is None:
        known = byte_tokens(tokenizer), replaced_texts(tokenizer)
        stream = Detokenizer(_decoder(tokenizer), *known)
        if arguments["stream"]:
            _streams[request_id] = stream
    if error is not None and finish:
        return f"{stream.rest()}\n[{error}]"
    text = stream.feed(ids)
    return text + stream.rest(cut=finish == "length") if finish or not arguments["stream"] else text


def _decoder(tokenizer: Any) -> Callable[[list[int]], str]:
    """Ids to the text that the model wrote: transformers can tidy it up, which no stream can."""
    if hasattr(tokenizer, "clean_up_tokenization_spaces"):
        return lambda ids: str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
    return lambda ids: str(tokenizer.decode(ids))


@patches(
    "exo.inference.tokenizers:_resolve_tokenizer",
    "only a tokenizer without bounds would show whether exo has some by now",
)
def keep_the_tokenizer(original: Function, engine_class: Any) -> Function:
    """Each request loads its tokenizer anew, unbounded, and all others wait (tokenizers.py:41)."""
    folders = {
        model.repository.replace("/", "--"): model.repository for model in engine_class.models.table
    }
    refused: dict[str, TokenizerError] = {}  # by repository: exo swallows it, and asks the hub then
    loaded: dict[Path, tuple[int, Any]] = {}  # with the time of the folder's last change

    async def _resolve_tokenizer(repo_id_or_local_path: Any) -> Any:
        folder = Path(repo_id_or_local_path)
        if (known := refused.get(str(repo_id_or_local_path))) is not None:
            raise known
        changed = _changed(folder) if folder.name in folders else None
        if changed is None:
            return await original(repo_id_or_local_path)
        if folder not in loaded or loaded[folder][0] != changed:
            refused.pop(folders[folder.name], None)
            try:  # exo's own way has no bounds
                await in_thread(lambda: refuse_unbounded(folder))
            except TokenizerError as error:
                refused[folders[folder.name]] = error
                raise
            loaded[folder] = changed, await original(repo_id_or_local_path)
        return loaded[folder][1]

    return _resolve_tokenizer


def _changed(folder: Path) -> int | None:
    """When a folder's files were changed last, in ns; None where there are none."""
    try:
        return max((file.lstat().st_mtime_ns for file in folder.iterdir()), default=None)
    except OSError:
        return None


@patches(
    "exo.orchestration.node:Node.process_prompt",
    "it shows between two nodes and the API alone",
)
def first_token_or_error(original: Function, engine_class: Any) -> Function:
    """A first step that fails on another node is HTTP 200 to the client (chatgpt_api.py:384)."""

    async def process_prompt(
        self: Any, base_shard: Any, prompt: str, request_id: Any = None, *rest: Any, **named: Any
    ) -> Any:
        state, call = state_of(self, engine_class), CALL.get()
        if state is None or request_id is None:
            return await original(self, base_shard, prompt, request_id, *rest, **named)

        async def begin() -> None:
            await hand_over(state, request_id, base_shard)
            await original(self, base_shard, prompt, request_id, *rest, **named)

        if call is None:
            if base_shard.end_layer > 0:  # from another node
                fit(state, base_shard)
            if request_id not in state.ends:  # else the prompt comes late
                state.answer(request_id)
                await shielded(state, request_id, begin())
            return
        call.request_ids.append(request_id)
        state.clients.add(request_id)
        await _first_token(state, request_id, state.answer(request_id), begin)

    return process_prompt


async def _first_token(
    state: NodeState, request_id: str, answer: AnswerState, begin: Callable[[], Any]
) -> None:
    """Begin a client's answer, and wait for its first token. Raises AnswerError."""
    try:
        if state.stopped is not None:
            raise state.stopped
        await hold(state)
        if request_id not in state.ends:  # its client can have gone meanwhile
            await begin()
            await answer.started.wait()
    except Exception as error:
        known = state.error_of(request_id) or why(error)  # what ended it is the reason
        state.remember(request_id, End(str(known), known.lost, known.cancelled))
        if known.lost:
            await lost(state, 0)
        raise known from error
    if (ended_by := state.error_of(request_id)) is not None:
        raise ended_by


@patches(
    "exo.api.chatgpt_api:ChatGPTAPI.handle_post_chat_completions",
    "it shows at a client's connection, during a whole answer",
)
def notice_clients(original: Function, engine_class: Any) -> Function:
    """A client that goes away is never told to the node: its answer runs on to its limit."""

    async def handle_post_chat_completions(self: Any, request: Any) -> Any:
        state = state_of(self.node, engine_class)
        if state is None:
            return await original(self, request)
        CALL.set(call := Call())
        watch = asyncio.ensure_future(_watch(state, request, call))
        try:
            if state.exo_engine.engine.executor.answers:
                call.body = await _body(request)
            response = await original(self, request)
        finally:
            watch.cancel()
            for request_id in call.request_ids:
                await _leave(state, request_id)
                loop = asyncio.get_running_loop()  # exo makes a queue anew for each late token
                loop.call_later(KEEP_SECONDS, self.token_queues.pop, request_id, None)
        errors = [state.error_of(request_id) for request_id in call.request_ids]
        away = any(error.lost for error in errors if error)
        if away and response.status == 500 and not response.prepared:
            response.set_status(503)
        return response

    return handle_post_chat_completions


@patches("exo.api.chatgpt_api:ChatGPTAPI.handle_tokens", looks.keeps_unread_tokens)
def drop_unread_tokens(original: Function, engine_class: Any) -> Function:
    """Every node keeps for ever what the clients of other nodes read (chatgpt_api.py:676)."""

    async def handle_tokens(self: Any, request_id: str, tokens: Any, is_finished: bool) -> None:
        await original(self, request_id, tokens, is_finished)
        state = state_of(self.node, engine_class)

        def drop() -> None:
            if state is not None and request_id not in state.clients:
                self.token_queues.pop(request_id, None)

        if is_finished:
            asyncio.get_running_loop().call_later(KEEP_SECONDS, drop)

    return handle_tokens


async def _body(request: Any) -> Any:
    """The JSON of a request, which aiohttp keeps; None where it is none, which exo says itself."""
    try:
        return await request.json()
    except ValueError:
        return None


async def _leave(state: NodeState, request_id: str) -> None:
    """Nobody reads this answer any more."""
    _streams.pop(request_id, None)
    state.clients.discard(request_id)
    state.wake()
    if request_id not in state.ends:
        await state.end(request_id, AnswerError("its client went away", cancelled=True))


async def _watch(state: NodeState, request: Any, call: Call) -> None:
    """End the answers of a connection that is closed; exo learns of it at its next write."""
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 - aiohttp 3.10 has no event for it
        await asyncio.sleep(LOOK_SECONDS)
    for request_id in call.request_ids:
        await state.end(request_id, AnswerError("its client went away", cancelled=True))
