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
)


def attack_in(folder: Path, package: str) -> Callable[[bytes], None]:
    """Function of a fuzzer's bytes, which are cut where they say."""
    client = import_module(f"{package}.kit.server.client")
    dialects = import_module(f"{package}.kit.rkllm.dialects")
    request = import_module(f"{package}.kit.rkllm.dialect").ServerRequest
    settings = import_module(f"{package}.kit.rkllm.settings").Settings.from_env({})
    kinds = (dialects.Legacy, dialects.Rkllama, dialects.OpenAI)

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
        kind = kinds[choice.below(len(kinds))]
        played = Played(settings)
        played.pieces = []
        while choice.left():
            piece = b"".join(PIECES[choice.below(len(PIECES))] for _ in range(choice.below(6)))
            played.pieces.append(piece)
        asked = request("model", [{"role": "user", "content": "Hi"}], 8)
        said = ""
        try:
            async for chunk in kind(played, 1.0).stream(asked):
                assert isinstance(chunk.text, str)
                assert chunk.count is None or type(chunk.count) is int
        except client.ServerError as error:
            said = str(error)
        assert len(said) < 2000
        assert "\x1b" not in said

    return lambda data: asyncio.run(read(data))
