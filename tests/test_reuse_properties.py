"""Whatever is asked, in whatever order, an answer is the one that is computed anew."""

import asyncio
import itertools
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import run as kit

START = "s" * 28  # four letters short of what is worth taking over
# Few letters, so that prompts often begin alike, and some are cut in the middle of what is alike.
TURN = st.tuples(st.integers(0, 3), st.text("ab", max_size=9), st.integers(1, 6))
# Who goes on with which chat, what is said, how much is answered, and how many ask meanwhile.
ROUNDS = st.lists(st.lists(TURN, min_size=1, max_size=4), min_size=1, max_size=6)
ENDS = st.lists(st.sampled_from(["finish", "cancel", "fail"]), min_size=24, max_size=24)


@pytest.fixture(scope="module")
def module(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Function `module(name)` that imports from a rendered plugin and its tests."""
    plugin = kit.render(template, tmp_path_factory.mktemp("reuse") / "plugin", "numpy")
    paths = [str(plugin), str(plugin / "tests"), str(plugin / "tests/kit")]
    sys.path[:0] = paths
    yield import_module
    for path in paths:
        sys.path.remove(path)


class Chats:
    """Chats over one node or two, whose every answer is compared with what is computed anew."""

    def __init__(self, module: Any, nodes: int, reuses: bool, room: int) -> None:
        toy: ModuleType = module("toy")
        contract = module("exo_kit.kit.contract")
        runner, sampler = (module(f"exo_kit.kit.engine.{n}") for n in ("engine", "sampler"))
        self.sampler = sampler.Sampler(contract.Sampling())
        device = type("Device", (toy.ToyMany,), {"block": 5})
        cuts = [(0, 3)] if nodes == 1 else [(0, 1), (2, 3)]
        self.layers = [contract.Layers("toy", first, last, 4) for first, last in cuts]
        self.runners = [runner.Engine(device, reuses=reuses) for _ in cuts]
        for each in self.runners:
            each._scheduler._cache._limit = room

    async def load(self, source: Any) -> None:
        for runner, layers in zip(self.runners, self.layers, strict=True):
            await runner.load(layers, source)

    async def answer(self, name: str, ids: list[int], most: int, end: str) -> list[int]:
        import numpy as np

        result: list[int] = []
        x: Any = np.array([ids])
        for _ in range(most):
            for runner in self.runners:
                x = await runner.step(name, x)
            result.append(self.runners[-1].pick(x, self.sampler))
            x = np.array([result[-1:]])
        for runner in self.runners:
            if end == "fail":
                runner.requests.fail(name, "a test", "request")
            else:
                getattr(runner.requests, end)(name)
        return result

    async def close(self) -> None:
        for runner in self.runners:
            await runner.close()


@pytest.mark.parametrize("nodes", [1, 2])
@settings(max_examples=60, deadline=None)
@given(rounds=ROUNDS, ends=ENDS, room=st.sampled_from([50_000, 120_000, 10_000_000]))
def test_random_conversations_are_answered_as_without_reuse(
    module: Any,
    tmp_path_factory: pytest.TempPathFactory,
    nodes: int,
    rounds: list[list[tuple[int, str, int]]],
    ends: list[str],
    room: int,
) -> None:
    folder = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXO_HOME", str(folder))
        patch.setattr(module("exo_kit.kit.engine.engine"), "version", lambda _: "0")  # in no venv
        running = module("running")
        source = running.Source(module("toy").write_tokenizer("organization/toy"))
        asyncio.run(_compare(module, source, nodes, rounds, ends, room))


async def _compare(
    module: Any,
    source: Any,
    nodes: int,
    rounds: list[list[tuple[int, str, int]]],
    ends: list[str],
    room: int,
) -> None:
    on, off = Chats(module, nodes, True, room), Chats(module, nodes, False, 10_000_000)
    vocabulary = module("toy").VOCABULARY
    pasts = [[vocabulary.index(letter) for letter in START + START[n:]] for n in range(4)]
    names, outcomes = itertools.count(), iter(ends)
    try:
        for chats in (on, off):
            await chats.load(source)
        for turns in rounds:
            work = []
            for chat, texts, most in turns:
                ids = [*pasts[chat], *(vocabulary.index(letter) for letter in texts or "c")]
                work.append((chat, f"request {next(names)}", ids, most, next(outcomes)))
            result = await asyncio.gather(*(on.answer(*rest) for _, *rest in work))
            expected = [await off.answer(*rest) for _, *rest in work]
            assert result == expected
            for (chat, _, ids, _, _), answer in zip(work, result, strict=True):
                pasts[chat] = [*ids, *answer]
    finally:
        await on.close()
        await off.close()
