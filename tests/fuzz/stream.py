"""Bytes to a server's stream, in any pieces: chunks, or one of its own errors, in every dialect."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from checkpoint import Bytes

PIECES = (
    *(b"{", b"}", b"[", b"]", b'"', b":", b",", b"\n", b"\r\n", b"data:", b"error:", b": c\n"),
    *(b"null", b"true", b"1e999", b"-1", b"[DONE]\n", b"\xe6\x97", b"\xff", b"\\ud800", b"\x1b[2J"),
    *(b'"choices"', b'"delta"', b'"content"', b'"finish_reason"', b'"usage"', b'"error"'),
    *(b'"message"', b'"done"', b'"eval_count"', b'"completion_tokens"', b'"reasoning_content"'),
    b'data: {"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}\n\n',
    b'{"message": {"content": "x"}, "done": true, "done_reason": "stop", "eval_count": 2}\n',
    b'{"choices": [{"content": "x"}], "usage": {"completion_tokens": 2}}\n\n',
    b'data: {"choices": [{"token_ids": [5, 99999999999], "finish_reason": null}]}\n\n',
    b'data: {"output_ids": [5, 6, 7], "meta_info": {"completion_tokens": 2}}\n\n',
    b'data: {"content": "x", "tokens": [5], "tokens_predicted": 3, "stop": false}\n\n',
    *(b'"tool_calls"', b'"function"', b'"arguments"', b'"index"', b'"tokens"', b'"output_ids"'),
    b'data: {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": {}}}]}}]}\n\n',
)


def streams_of(package: str) -> list[Callable[[Any], Any]]:
    """Functions of a client: the streams of every dialect of a variant."""
    messages = [{"role": "user", "content": "Hi"}]
    if package.endswith("_rkllm"):
        dialects = import_module(f"{package}.kit.rkllm.dialects")
        request = import_module(f"{package}.kit.rkllm.dialect").ServerRequest("m", messages, 8)
        kinds = (dialects.Legacy, dialects.Rkllama, dialects.OpenAI)
        return [lambda client, kind=kind: kind(client, 1.0).stream(request) for kind in kinds]
    dialects = import_module(f"{package}.kit.openai.dialects")
    dialect = import_module(f"{package}.kit.openai.dialect")
    sent = dialect.ServerRequest("m", "Hi", (1, 2), 8, messages=messages, tools=[{}])
    plain = dialect.Dialect
    kinds = (dialects.Vllm, dialects.SgLang, dialects.TensorRt, dialects.LlamaCpp)
    made = [lambda client, kind=kind: kind(client, 1.0).ids(sent, {}) for kind in kinds]
    return [*made, lambda c: plain(c, 1.0).text(sent), lambda c: plain(c, 1.0).chat(sent)]


def attack_in(folder: Path, package: str) -> Callable[[bytes], None]:
    """Function of a fuzzer's bytes, which are cut where they say."""
    client = import_module(f"{package}.kit.server.client")
    contract = import_module(f"{package}.kit.contract")
    variant = package.rpartition("_")[2]
    settings = import_module(f"{package}.kit.{variant}.settings").Settings.from_env({})
    streams = streams_of(package)

    class Played(client.Client):  # type: ignore[misc, name-defined] # a module of a rendered plugin
        pieces: list[bytes]

        @asynccontextmanager
        async def _answer(self, *_: Any) -> AsyncIterator[Any]:
            async def pieces() -> AsyncIterator[bytes]:
                for piece in self.pieces:
                    yield piece

            content = SimpleNamespace(iter_any=pieces)
            yield SimpleNamespace(status=200, content=content)

    async def read(data: bytes) -> None:
        choice = Bytes(data)
        stream = streams[choice.below(len(streams))]
        played = Played(settings)
        played.pieces = []
        while choice.left():
            piece = b"".join(PIECES[choice.below(len(PIECES))] for _ in range(choice.below(6)))
            played.pieces.append(piece)
        output = ""
        try:
            async for piece in stream(played):
                check(piece)
        except (client.ServerError, contract.RequestError) as error:
            output = str(error)
        assert len(output) < 2000
        assert "\x1b" not in output

    return lambda data: asyncio.run(read(data))


def check(piece: Any) -> None:
    """A chunk, or a piece, has what its type says."""
    assert isinstance(piece.text, str)
    assert type(getattr(piece, "count", None) or 0) is int
    assert all(type(i) is int and 0 <= i < 1 << 31 for i in getattr(piece, "ids", ()))
    for call in getattr(piece, "tool_calls", ()):
        assert all(isinstance(text, str) for text in (call.id, call.name, call.arguments))
