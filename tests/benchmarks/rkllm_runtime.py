"""What the RKLLM plugin costs over the runtime library in its process, and beside an rkllama.

The library is one that plays librkllmrt.so 1.3.0, of a known time a token. Run by hand, in an
environment in which a rendered exo-rkllm and its test extra are installed:

    python tests/benchmarks/rkllm_runtime.py path/to/exo-rkllm

With an rkllama over the same library, whose $DOUBLE_SCRIPT is the file that --script names and
whose $DOUBLE_TOKEN_MS is --token-ms, all three are measured in turns:

    ... --script FILE --token-ms 20 --rkllama http://127.0.0.1:8080 --rkllama-model NAME
"""

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from server_timing import Timing, through_engine

SOURCE = Path(__file__).parents[1] / "kit/rkllm/runtime_double.c"
MODEL, NAME = "qwen2.5-1.5b-instruct-rkllama", "Qwen2.5-1.5B-Instruct"
PROMPT = (
    "<|im_start|>system\nBe brief.<|im_end|>\n"
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
)
TOKENS = 60
Ask = Callable[[str], Awaitable[Timing]]


def compile_library(folder: Path) -> Path:
    made = folder / "librkllmrt.so"
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))))
    options = ["-O2", "-shared", "-fPIC", "-w", "-DGROUP=130", '-DVERSION="1.3.0"']
    subprocess.run([compiler, *options, "-o", made, SOURCE], check=True)
    return made


def the_library(path: Path, model: Path, ids: tuple[int, ...]) -> Ask:
    """The peer: the library's own times, its callback noting them and nothing else."""
    from exo_rkllm.kit.contract import Sampling
    from exo_rkllm.kit.rkllm.runtime import Library, Run, Start

    library = Library(path)
    library.start(Start(model))

    def run() -> Timing:
        times = []
        begun = time.perf_counter()
        library.run(Run(ids, 500, Sampling()), lambda *_: times.append(time.perf_counter()))
        return Timing(times[0] - begun, times[-1] - begun, len(times) - 1)

    async def ask(_: str) -> Timing:
        return await asyncio.to_thread(run)

    return ask


async def the_plugin(stack: AsyncExitStack, **settings: str) -> Ask:
    """An engine as exo loads it, with these settings; it is closed with the stack."""
    from exo.inference.plugin_discovery import load_inference_engine
    from exo.inference.shard import Shard

    for name in ("RKLLM_LIBRARY", "RKLLM_SERVER_URL", "RKLLM_MODEL"):
        os.environ.pop(name, None)
    os.environ.update(settings)
    engine, shard = load_inference_engine("rkllama", None), Shard(MODEL, 0, 27, 28)
    stack.push_async_callback(engine.close)
    await engine.ensure_shard(shard)
    return lambda name: through_engine(engine, shard, name, PROMPT)


async def measure(asks: dict[str, Ask], rounds: int, run: str) -> dict[str, list[Timing]]:
    """Each in turn, so that a busy moment is everybody's; the first round is not counted."""
    timings: dict[str, list[Timing]] = {name: [] for name in asks}
    for n in range(rounds + 1):
        for name, ask in asks.items():
            timing = await ask(f"{name}-{run}-{n}")
            # A server's text may come in other pieces, and have fewer ids here.
            assert timing.tokens == TOKENS or name == "rkllama", (name, timing)
            if n:
                timings[name].append(timing)
    return timings


def report(timings: dict[str, list[Timing]], token_ms: float) -> None:
    median = statistics.median
    own = timings["library"]
    own_first, own_whole = median(t.first for t in own), median(t.whole for t in own)
    print(f"{token_ms:g} ms a token, {len(own)} rounds, load {os.getloadavg()[0]:.1f}, medians")
    for name, each in timings.items():
        first, whole = median(t.first for t in each), median(t.whole for t in each)
        more, token = (first - own_first) * 1e3, (whole - own_whole) / TOKENS * 1e3
        print(
            f"{name:>9}: first token {first * 1e3:7.2f} ms (+{more:.2f}), whole answer "
            f"{whole * 1e3:8.1f} ms (+{token:.3f} ms a token)"
        )


async def run(folder: Path, options: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        await compare(stack, folder, options)


async def compare(stack: AsyncExitStack, folder: Path, options: argparse.Namespace) -> None:
    from exo_rkllm.kit.text.tokenizer import Tokenizer

    library, model = compile_library(folder), folder / f"{NAME}.rkllm"
    model.write_bytes(b"RKLLM")
    tokenizer = Tokenizer.from_folder(folder / "downloads" / f"Qwen--{NAME}")
    script = options.script or folder / "script"
    script.write_text(" ".join([f"{tokenizer.encode('a')[0]}|a"] * TOKENS) + "\n")
    os.environ |= {"DOUBLE_SCRIPT": str(script), "RKLLM_MODELS": str(folder)}
    asks = {
        "library": the_library(library, model, tuple(tokenizer.encode(PROMPT))),
        "runtime": await the_plugin(stack, RKLLM_LIBRARY=str(library)),
    }
    for token_ms in [options.token_ms] if options.rkllama else [20, 0]:
        os.environ["DOUBLE_TOKEN_MS"] = str(token_ms)
        if options.rkllama:
            asks["rkllama"] = await the_plugin(
                stack, RKLLM_SERVER_URL=options.rkllama, RKLLM_MODEL=options.rkllama_model
            )
        report(await measure(asks, options.rounds, f"{token_ms}"), token_ms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plugin", type=Path, help="a rendered exo-rkllm")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--script", type=Path)
    parser.add_argument("--token-ms", type=int, default=20)
    parser.add_argument("--rkllama", metavar="URL")
    parser.add_argument("--rkllama-model", metavar="NAME")
    options = parser.parse_args()
    tests = options.plugin / "tests"
    sys.path[:0] = [str(tests), str(tests / "standin")]
    from tokenizers_for_tests import byte_level_bpe

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        byte_level_bpe(folder / "downloads" / f"Qwen--{NAME}")
        os.environ |= {"EXO_HOME": name, "HF_HUB_OFFLINE": "1"}
        asyncio.run(run(folder, options))


if __name__ == "__main__":
    main()
