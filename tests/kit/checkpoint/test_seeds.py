"""A seed's answer is its own: alone and among eight, whatever the device computes together."""

import asyncio
from pathlib import Path

from running import WHOLE, request

from exo_kit.backend import Backend
from exo_kit.kit.cards import Model
from exo_kit.kit.contract import Layers, Sampling
from exo_kit.kit.engine.engine import Engine
from exo_kit.kit.llama.random_checkpoint import DEFAULT, write_checkpoint


class Checkpoint:
    """A folder with a random model."""

    model = Model("random", "Random", "owner/random", 4)

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        write_checkpoint(folder, DEFAULT)

    async def tokenizer(self) -> Path:
        return self._folder

    async def files(self, patterns: tuple[str, ...], layers: Layers, everything: bool) -> Path:
        return self._folder


async def test_a_seed_gives_the_same_answer_alone_and_among_eight(tmp_path: Path) -> None:
    engine = Engine(Backend)
    await engine.load(WHOLE, Checkpoint(tmp_path / "model"))

    async def ids(name: str, seed: int) -> list[int]:
        sampling = Sampling(temperature=1.0, top_p=0.95, seed=seed, frequency_penalty=0.1)
        question = request(engine, f"Question {seed}: ", name, 16, sampling=sampling)
        return [token async for piece in engine.answer(question, text=False) for token in piece.ids]

    try:
        alone = [await ids(f"alone {seed}", seed) for seed in range(8)]
        together = await asyncio.gather(*(ids(f"together {seed}", seed) for seed in range(8)))
    finally:
        await engine.close()
    assert len({tuple(answer) for answer in alone}) == 8
    assert together == alone
