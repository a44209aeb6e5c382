"""What the benchmarks of the server variants share: an answer's times, through the engine."""

import time
from dataclasses import dataclass


@dataclass
class Timing:
    """Seconds to the first token and to the end, and how many tokens came."""

    first: float
    whole: float
    tokens: int


async def through_engine(engine, shard, request_id: str, prompt: str) -> Timing:
    """One answer as exo's node asks for it."""
    begun = time.perf_counter()
    result, _ = await engine.infer_prompt(request_id, shard, prompt, None)
    first, tokens = time.perf_counter() - begun, 0
    while True:
        token = await engine.sample(result, temp=0.0)
        await engine.ensure_shard(shard)
        if token.item() == engine.tokenizer.eos_token_id:
            return Timing(first, time.perf_counter() - begun, tokens)
        tokens += 1
        result, _ = await engine.infer_tensor(request_id, shard, token.reshape(1, -1), None)
