"""What the openai plugin costs over its server, for each kind: measured in one run.

Run by hand, in an environment in which a rendered exo-openai and its test extra are installed:

    python tests/benchmarks/openai_variant.py path/to/exo-openai [--llama-server URL --folder PATH]

The peer is the same request over aiohttp, each event parsed and nothing else. Without a URL the
plugin's test server plays each kind; with one, a llama-server that has SmolLM2-135M-Instruct is
measured (start it with --parallel 8), and the folder has that model's tokenizer.
"""

import argparse
import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from server_timing import Timing, through_engine

MODEL, SERVED = "smollm2-135m-instruct-openai", "SmolLM2-135M-Instruct"
LAYERS = 30
MOST = 2000  # tokens of an answer
REAL_MOST = 300  # of one that a model computes
KINDS = ("vllm", "llama.cpp", "sglang", "tensorrt-llm", "openai", "chat")
PROMPT = (
    "<|im_start|>system\nBe brief.<|im_end|>\n"
    "<|im_start|>user\nWrite a long story about the sea.<|im_end|>\n<|im_start|>assistant\n"
)


async def raw_stream(url: str, kind: str, ids: list[int], most: int) -> Timing:
    import aiohttp

    path, body = raw_request(kind, ids, most)
    begun, first, events = time.perf_counter(), 0.0, 0
    async with aiohttp.ClientSession() as session, session.post(f"{url}{path}", json=body) as reply:
        async for line in reply.content:
            if line.startswith(b"data: {"):
                json.loads(line[6:])
                first = first or time.perf_counter() - begun
                events += 1
    return Timing(first, time.perf_counter() - begun, events)


def raw_request(kind: str, ids: list[int], most: int) -> tuple[str, dict]:
    body = {"model": SERVED, "stream": True, "temperature": 0.0, "top_p": 1.0, "max_tokens": most}
    if kind == "chat":
        return "/v1/chat/completions", body | {"messages": [{"role": "user", "content": "Hi"}]}
    if kind == "sglang":
        return "/generate", {"input_ids": ids, "stream": True, "sampling_params": body}
    if kind == "llama.cpp":
        return "/completion", body | {"prompt": ids, "return_tokens": True, "n_predict": most}
    prompt = {"prompt": PROMPT if kind == "openai" else ids}
    extra = {"tensorrt-llm": {"detokenize": False}, "vllm": {"return_token_ids": True}}
    return "/v1/completions", body | prompt | extra.get(kind, {})


@contextmanager
def play(plugin: Path, kind: str, *arguments: str) -> Iterator[str]:
    """The test server in a process of its own, as a real one would be."""
    command = [sys.executable, str(plugin / "tests/server.py"), "--kind", kind, "--model", SERVED]
    command += ["--pieces", "a", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextmanager
def loaded(loop, url: str, most: int):
    """The engine with the server's model, as an exo loads it."""
    from exo.inference.plugin_discovery import load_inference_engine
    from exo.inference.shard import Shard

    os.environ["EXO_OPENAI_URL"] = url
    engine, shard = load_inference_engine("openai", None), Shard(MODEL, 0, LAYERS - 1, LAYERS)
    loop.run_until_complete(engine.ensure_shard(shard))
    engine.limits = lambda: (most, 0.0)
    try:
        yield engine, shard
    finally:
        loop.run_until_complete(engine.close())


def cost(loop, url: str, kind: str, rounds: int, most: int = MOST) -> str:
    """The first token and each token, over the raw stream; the two take turns.

    A token's cost is the median of the rounds' differences, and where the middle half of them is.
    """
    raws, ours = [], []
    with loaded(loop, url, most) as (engine, shard):
        ids = engine.tokenizer.encode(PROMPT)
        for n in range(rounds + 1):
            raws.append(loop.run_until_complete(raw_stream(url, kind, ids, most)))
            ours.append(
                loop.run_until_complete(through_engine(engine, shard, f"{kind}{n}", PROMPT))
            )
    cold, median = ours[0].first, statistics.median
    raws, ours = raws[1:], ours[1:]
    first = median(o.first for o in ours) - median(r.first for r in raws)
    costs = [(o.whole - r.whole) / o.tokens * 1e3 for o, r in zip(ours, raws, strict=True)]
    low, middle, high = statistics.quantiles(costs, n=4)
    return (
        f"first token {first * 1e3:+.1f} ms (the very first took {cold * 1e3:.0f} ms), "
        f"{middle:+.3f} ms a token ({low:+.3f} to {high:+.3f}) over {ours[0].tokens}"
    )


def at_once(loop, url: str, kind: str, most: int = MOST) -> str:
    """Eight answers side by side, over one; the same of the raw stream."""
    with loaded(loop, url, most) as (engine, shard):
        ids = engine.tokenizer.encode(PROMPT)

        async def timed(many: int, ask) -> float:
            begun = time.perf_counter()
            await asyncio.gather(*(ask() for _ in range(many)))
            return time.perf_counter() - begun

        outcomes, numbers = [], count()
        for ask in (
            lambda: through_engine(engine, shard, str(next(numbers)), PROMPT),
            lambda: raw_stream(url, kind, ids, most),
        ):
            loop.run_until_complete(ask())
            one, eight = (loop.run_until_complete(timed(many, ask)) for many in (1, 8))
            outcomes.append(f"{eight / one:.2f}")
    return f"8 at once take {outcomes[0]} times one of {one:.2f} s, of the raw stream {outcomes[1]}"


def closing(loop, url: str, rounds: int = 9) -> str:
    """How long after an answer's end here a llama-server works for it."""
    import aiohttp

    async def works() -> bool:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/slots") as reply:
            return any(slot["is_processing"] for slot in await reply.json())

    async def closed(engine, shard, name: str) -> float:
        await engine.infer_prompt(name, shard, PROMPT, None)
        assert await works()
        begun = time.perf_counter()
        engine.engine.requests.cancel(name)
        while await works():  # noqa: ASYNC110 - another process works
            await asyncio.sleep(0.001)
        return time.perf_counter() - begun

    with loaded(loop, url, MOST) as (engine, shard):
        took = [loop.run_until_complete(closed(engine, shard, f"c{n}")) for n in range(rounds)]
    middle, most = statistics.median(took) * 1e3, max(took) * 1e3
    return f"stops {middle:.0f} ms after a cancel, {most:.0f} at most"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plugin", type=Path, help="a rendered exo-openai")
    parser.add_argument("--llama-server", help="the URL of one that runs")
    parser.add_argument("--folder", type=Path, help="where that model's tokenizer is")
    options = parser.parse_args()
    sys.path[:0] = [str(options.plugin / "tests"), str(options.plugin / "tests" / "standin")]
    from tokenizers_for_tests import byte_level_bpe

    logging.disable(logging.INFO)
    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "downloads" / "HuggingFaceTB--SmolLM2-135M-Instruct"
        folder.mkdir(parents=True)
        os.environ |= {"EXO_HOME": home, "HF_HUB_OFFLINE": "1"}
        if url := options.llama_server:
            for path in options.folder.glob("*.json"):
                (folder / path.name).symlink_to(path.resolve())
            print(f"llama-server: {cost(loop, url, 'llama.cpp', 9, REAL_MOST)}", flush=True)
            print(f"llama-server: {at_once(loop, url, 'llama.cpp', REAL_MOST)}", flush=True)
            print(f"llama-server: {closing(loop, url)}", flush=True)
            return
        byte_level_bpe(folder)
        for kind in KINDS:
            with play(options.plugin, kind, "--times", "20", "--tokens-per-second", "50") as url:
                print(f"{kind}, 50 tokens/s: {cost(loop, url, kind, 5)}", flush=True)
            with play(options.plugin, kind, "--times", "2000") as url:
                print(f"{kind}, as fast as it goes: {cost(loop, url, kind, 5)}", flush=True)
            with play(options.plugin, kind, "--times", "60", "--tokens-per-second", "40") as url:
                print(f"{kind}, 40 tokens/s: {at_once(loop, url, kind)}", flush=True)


if __name__ == "__main__":
    main()
