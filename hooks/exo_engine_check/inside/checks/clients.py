"""EX91: exo's API and its clients, and the end of a node."""

import asyncio
import sys
from collections.abc import AsyncIterator
from types import ModuleType, SimpleNamespace
from typing import Any

from .. import host
from ..check import Check
from ..driver import Driver
from ..nodes import Peer, ask_api, held, make_node
from ..patience import comes, settle


class EX911(Check, row="lossless text", host_fault=True):
    "Clients see whole characters, and no closing mark"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """exo decodes each token by itself and shows the one that ends (chatgpt_api.py:64-104): so
        half a character is a replacement character, and "<|im_end|>" is part of the answer. Wrap
        `generate_completion`, and give what is new of all ids so far, without the last."""
        await driver.nodes(1)
        driver.make()
        for what, text in (("the closing mark", "ok"), ("half characters", "\u65e5 \U0001f642")):
            streamed = _streamed(driver, [*text.encode(), 256])
            if streamed != text:
                yield f"a client sees {what}: {streamed!r}, not {text!r}"


def _streamed(driver: Driver, ids: list[int]) -> str:
    """What exo's API streams of an answer whose tokens are bytes; 256 is the end."""

    def decode(ids: Any, **_: Any) -> str:
        text = bytes(i for i in ids if i < 256).decode("utf-8", "replace")
        return text + "<end>" * len([i for i in ids if i == 256])

    tokenizer = SimpleNamespace(decode=decode, encode=lambda _: [1], eos_token_id=256)
    chat, text = SimpleNamespace(model=driver.device.first), ""
    api, request_id = driver.exo.load(host.API), driver.request_id()
    for n, token in enumerate(ids, 1):
        finish = "stop" if n == len(ids) else None
        arguments = (chat, tokenizer, "", request_id, [token], True, finish, "chat.completion")
        text += str(api.generate_completion(*arguments)["choices"][0]["delta"]["content"])
    return text


class EX912(Check, row="faults", host_fault=True):
    "A first step that fails elsewhere is an error to the client"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """exo's API answers HTTP 200 once the node has taken the prompt (chatgpt_api.py:384), when
        another node has not had its part of the first step. Wrap `Node.process_prompt`: let it wait
        for the first token, and raise what has ended the answer."""
        driver.shards(2)
        _, answer = await ask_api(driver, await make_node(driver, Peer()))
        if not await comes(answer, driver.seconds) or answer.result().status < 400:
            answer.cancel()
            yield "the first step fails on another node, and the client gets HTTP 200"


class EX913(Check, row="cancel", host_fault=True):
    "The answer of a client that goes away ends"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """Nobody tells exo's node that a connection is closed: the answer runs on to its limit, by
        default 10,000 tokens, and the device is busy with it. Wrap
        `ChatGPTAPI.handle_post_chat_completions`, look at `request.transport` meanwhile, and end
        the answer."""
        node = await make_node(driver)
        async with held(driver, node) as (client, listener):
            client.closed = True
            await listener.within()
            before = len(listener.ids)
        if len(listener.ids) > before + 1:
            yield "a client has gone away, and its answer goes on"


class EX915(Check, row="streaming"):
    "A client gets an answer as it comes"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """exo's API sends each token when its node tells of it (chatgpt_api.py:410). What wraps
        that may hold half a character back, and no more: the first words come before the last."""
        async with held(driver, await make_node(driver)) as (client, _):
            await settle(1.0, lambda: bool(client.events))
            if not client.events:
                yield "the first token is there, and a client gets nothing until the answer's end"


class EX914(Check, row="faults", host_fault=True):
    "The end of the node ends its answers"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """exo's shutdown cancels every task and closes no engine (helpers.py:329, main.py:320): the
        clients' connections break, and a device keeps what it has. Wrap `shutdown` of `exo.main`,
        and of `exo.api.chatgpt_api` (/quit): end the answers in flight, then close the device."""
        main, api = ModuleType("exo.main"), driver.exo.load(host.API)
        before, quits = sys.modules.get("exo.main"), vars(api).get("shutdown")
        sys.modules["exo.main"] = main  # importing exo's own would start a node
        try:
            for how, module in (("by a signal", main), ("by /quit", api)):
                module.__dict__["shutdown"] = _shutdown
                node = await make_node(driver)
                async with held(driver, node) as (_, listener):
                    server, loop = SimpleNamespace(node=node), asyncio.get_running_loop()
                    stop = module.__dict__["shutdown"]("SIGTERM", loop, server)
                    await driver.run("exo's shutdown()", stop)
                    if not await listener.within():
                        yield f"exo is stopped {how}, and the answer in flight is not ended"
        finally:
            del sys.modules["exo.main"]
            sys.modules.update({"exo.main": before} if before else {})
            api.__dict__.update({"shutdown": quits} if quits else {})


async def _shutdown(signal: Any, loop: Any, server: Any) -> None:
    return
