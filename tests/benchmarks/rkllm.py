"""What the RKLLM plugin costs over its server: ratios against the raw HTTP stream, in one run.

Run by hand, in an environment in which a rendered exo-rkllm and its test extra are installed:

    python tests/benchmarks/rkllm.py path/to/exo-rkllm
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server_timing import Timing, through_engine

MODEL, SERVED = "qwen2.5-1.5b-instruct-rkllama", "Qwen2.5-1.5B-Instruct"
PROMPT = (
    "<|im_start|>system\nBe brief.<|im_end|>\n"
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
)
PIECE = "a"  # one id of the small tokenizer, as a server's piece is one id of the model's


async def raw_stream(url: str) -> Timing:
    """The peer: the same request over aiohttp, each line parsed and nothing else."""
    import aiohttp

    body = {
        "model": SERVED,
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "think": False,
        "options": {"num_predict": 10_000, "temperature": 0.0, "top_p": 1.0, "top_k": 1},
    }
    begun, first, count = time.perf_counter(), 0.0, 0
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/api/chat", json=body) as reply,
    ):
        async for line in reply.content:
            if line.strip() and json.loads(line)["message"]["content"]:
                first = first or time.perf_counter() - begun
                count += 1
    return Timing(first, time.perf_counter() - begun, count)


async def compare(url: str, name: str, rounds: int) -> None:
    from exo.inference.plugin_discovery import load_inference_engine
    from exo.inference.shard import Shard

    os.environ["RKLLM_SERVER_URL"] = url
    engine = load_inference_engine("rkllama", None)
    shard = Shard(MODEL, 0, 27, 28)
    await engine.ensure_shard(shard)
    raws, engines = [], []
    for i in range(rounds):
        raws.append(await raw_stream(url))
        engines.append(await through_engine(engine, shard, f"bench{i}", PROMPT))
    await engine.close()
    report(name, raws, engines)


@contextmanager
def serve(tests: Path, *arguments: str) -> Iterator[str]:
    """The test server in a process of its own, as a real one would be."""
    command = [sys.executable, str(tests / "server.py"), "--model", SERVED, "--pieces", PIECE]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def report(name: str, raws: list[Timing], engines: list[Timing]) -> None:
    median = statistics.median
    first = median(e.first for e in engines) - median(r.first for r in raws)
    raw, ours = median(r.whole for r in raws), median(e.whole for e in engines)
    tokens = engines[0].tokens
    print(
        f"{name:>14}: first token +{first * 1e3:.1f} ms; whole answer {ours / raw:.3f} of raw HTTP "
        f"({ours:.3f} s, {raw:.3f} s); {(ours - raw) / tokens * 1e3:.3f} ms a token over {tokens}"
    )


def import_seconds(environ: dict[str, str]) -> float:
    code = "import time; t = time.perf_counter(); import exo_rkllm; print(time.perf_counter() - t)"
    runs = [
        float(subprocess.check_output([sys.executable, "-c", code], env=environ)) for _ in range(5)
    ]
    return statistics.median(runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plugin", type=Path, help="a rendered exo-rkllm")
    tests = parser.parse_args().plugin / "tests"
    sys.path[:0] = [str(tests), str(tests / "standin")]
    from tokenizers_for_tests import byte_level_bpe

    print(f"import exo_rkllm: {import_seconds(dict(os.environ)):.4f} s")
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "downloads" / "Qwen--Qwen2.5-1.5B-Instruct"
        folder.mkdir(parents=True)
        byte_level_bpe(folder)
        os.environ |= {"EXO_HOME": home, "HF_HUB_OFFLINE": "1"}
        with serve(tests, "--times", "24", "--tokens-per-second", "8") as url:
            asyncio.run(compare(url, "8 tokens/s", rounds=3))
        with serve(tests, "--times", "4000") as url:
            asyncio.run(compare(url, "unthrottled", rounds=7))


if __name__ == "__main__":
    main()
