"""A stream's next item has so many seconds; one timer bounds all waits."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from exo_kit.kit.server.client import ServerError
from exo_kit.kit.server.events import in_time

SECONDS = 0.1


async def _items(*items: str | float) -> AsyncGenerator[str, None]:
    """Texts, and seconds of silence between them."""
    for item in items:
        if isinstance(item, str):
            yield item
        else:
            await asyncio.sleep(item)


async def _take(*items: str | float, pause: float = 0.0) -> list[str]:
    async with aclosing(in_time(_items(*items), bool, SECONDS, "http://board")) as stream:
        taken = []
        async for item in stream:
            taken.append(item)
            await asyncio.sleep(pause)
        return taken


async def test_what_has_something_is_handed_out_in_order():
    assert await _take("a", "", "b", "", "") == ["a", "b"]


async def test_a_silent_server_is_no_answer():
    with pytest.raises(ServerError, match="http://board was silent for too long"):
        await _take("a", 60.0)
    assert not asyncio.current_task().cancelling()


async def test_events_with_nothing_in_them_are_no_sign_of_life():
    with pytest.raises(ServerError, match="silent"):
        await _take("a", *["", SECONDS / 5] * 1000)


async def test_who_takes_its_time_with_an_item_is_not_the_servers_silence():
    assert await _take("a", "b", "c", pause=SECONDS * 1.5) == ["a", "b", "c"]


async def test_a_cancel_from_elsewhere_stays_one():
    task = asyncio.create_task(_take("a", 60.0))
    asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
