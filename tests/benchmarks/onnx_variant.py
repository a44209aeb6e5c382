"""What the ONNX variant makes of a CPU beside other runtimes: ratios of rounds that take turns.

Run by hand, on a machine that does nothing else, in an environment with onnxruntime, onnx, copier
and what a plugin requires. MODEL is a Hugging Face folder with float32 or bfloat16 safetensors:

    python tests/benchmarks/onnx_variant.py MODEL [--threads 1] [--rounds 7]
        [--llama-bench FILE --gguf Q8_0.gguf]     # llama.cpp's own benchmark, and the model
        [--genai PYTHON --genai-model FOLDER]     # a Python with onnxruntime-genai, its int4 model

int8/llama   our int8's tokens a second over those of llama.cpp's Q8_0, decode and prefill
int4/genai   our int4's over those of onnxruntime-genai's int4, with the same threads
float32/numpy  ours over the NumPy variant's, with the same threads
load, memory   seconds, megabytes at rest and at most, of a process that loads at int4; with a cache
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
DECODE, PROMPT = 32, 512
STEPS = """
import json, os, sys, time
from importlib import import_module
from pathlib import Path
import numpy as np
package, folder = sys.argv[1], Path(sys.argv[2])
total = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
layers = import_module(package + ".kit.contract").Layers("m", 0, total - 1, total)
backend = import_module(package + ".backend").Backend()
begun = time.perf_counter()
backend.load(layers, folder, None)
load = time.perf_counter() - begun
def status(key):
    if not Path("/proc/self/status").exists():
        return 0.0
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(l.split()[1]) for l in lines if l.startswith(key + ":")) / 1024
ids = np.random.default_rng(0).integers(0, 1000, (1, PROMPT))
def timed():
    begun = time.perf_counter()
    backend.step("p", ids)
    prefill = PROMPT / (time.perf_counter() - begun)
    backend.forget("p")
    backend.step("d", ids[:, :16])
    begun = time.perf_counter()
    for n in range(DECODE):
        backend.step("d", ids[:, n : n + 1])
    decode = DECODE / (time.perf_counter() - begun)
    backend.forget("d")
    return {"decode": decode, "prefill": prefill}
if "load" in sys.argv:
    print(json.dumps({"load s": load, "rest MB": status("VmRSS"), "most MB": status("VmHWM")}))
else:
    timed()
    for line in sys.stdin:
        print(json.dumps(timed()), flush=True)
"""
GENAI = """
import json, sys, time
import numpy as np, onnxruntime_genai as og
model = og.Model(sys.argv[1])
ids = np.random.default_rng(0).integers(0, 1000, PROMPT)
def run(count, more):
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=count + more + 1, min_length=count + more + 1)
    generator = og.Generator(model, params)
    begun = time.perf_counter()
    generator.append_tokens(ids[:count])
    generator.generate_next_token()
    prefill = count / (time.perf_counter() - begun)
    begun = time.perf_counter()
    for _ in range(more):
        generator.generate_next_token()
    return more / (time.perf_counter() - begun) if more else prefill
run(16, 4)
for line in sys.stdin:
    print(json.dumps({"decode": run(16, DECODE), "prefill": run(PROMPT, 0)}), flush=True)
"""


def program(text: str) -> str:
    """A program with this benchmark's sizes."""
    return f"DECODE, PROMPT = {DECODE}, {PROMPT}\n{text}"


def rendered(variant: str, folder: Path) -> Path:
    """A plugin of this variant, from the working tree."""
    from copier import run_copy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of changes that are not committed
        data = {"project_name": f"exo-{variant}", "variant": variant}
        run_copy(str(REPOSITORY), folder, data=data, vcs_ref="HEAD", defaults=True, quiet=True)
    return folder


class Process:
    """A runtime in a process of its own, which measures once for each line that it is given."""

    def __init__(self, command: list[object], **settings: str) -> None:
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | settings,
        )

    def measure(self) -> dict[str, float]:
        """Tokens a second."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        """End it."""
        self._process.stdin.close()
        self._process.wait()


class Llama:
    """llama.cpp's own benchmark."""

    def __init__(self, program: Path, model: Path, threads: int) -> None:
        self._command = [program, "-m", model, "-t", threads, "-p", PROMPT, "-n", DECODE]

    def measure(self) -> dict[str, float]:
        """Tokens a second."""
        command = [str(part) for part in [*self._command, "-r", 1, "-o", "json"]]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows = json.loads(done.stdout)
        return {"decode" if r["n_gen"] else "prefill": r["avg_ts"] for r in rows}

    def end(self) -> None:
        """Nothing runs between."""


def with_threads(model: Path, folder: Path, threads: int) -> Path:
    """A model of onnxruntime-genai in a folder of its own, whose settings say how many threads."""
    made = folder / f"genai-{threads}"
    made.mkdir()
    for path in model.iterdir():
        (made / path.name).symlink_to(path.resolve())
    config = json.loads((model / "genai_config.json").read_text())
    config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = threads
    (made / "genai_config.json").unlink()
    (made / "genai_config.json").write_text(json.dumps(config))
    return made


def ours(plugin: Path, model: Path, threads: int, precision: str, *more: str, cache: str = ""):
    """One of our plugins as a command and its settings."""
    package = plugin.name.replace("-", "_")
    prefix = package.upper() + "_"
    settings = {"PYTHONPATH": str(plugin), f"{prefix}THREADS": str(threads)}
    settings |= {f"{prefix}PRECISION": precision, "OPENBLAS_NUM_THREADS": str(threads)}
    settings |= {f"{prefix}CACHE": cache}
    return [sys.executable, "-c", program(STEPS), package, model, *more], settings


def compare(options: argparse.Namespace, folder: Path, threads: int) -> None:
    """Ratios at one number of threads."""
    plugin, numpy = folder / "exo-onnx", folder / "exo-numpy"
    runtimes: dict[str, Process | Llama] = {}
    for precision in ("float32", "int8", "int4"):
        command, settings = ours(plugin, options.model, threads, precision)
        runtimes[precision] = Process(command, **settings)
    command, settings = ours(numpy, options.model, threads, "")
    runtimes["numpy"] = Process(command, **settings)
    if options.llama_bench:
        runtimes["llama"] = Llama(options.llama_bench, options.gguf, threads)
    if options.genai:
        genai = with_threads(options.genai_model, folder, threads)
        command = [options.genai, "-c", program(GENAI), genai]
        runtimes["genai"] = Process(command)
    rounds = [
        {name: runtime.measure() for name, runtime in runtimes.items()}
        for _ in range(options.rounds)
    ]
    for runtime in runtimes.values():
        runtime.end()
    for name in runtimes:
        for what in ("decode", "prefill"):
            middle = statistics.median(taken[name][what] for taken in rounds)
            print(f"  {name:8} {what:8} {middle:8.1f} tokens/s", flush=True)
    for one, other in (("int8", "llama"), ("int4", "genai"), ("float32", "numpy")):
        for what in ("decode", "prefill"):
            if other in runtimes:
                ratios = [taken[one][what] / taken[other][what] for taken in rounds]
                span = f"{min(ratios):.2f} to {max(ratios):.2f}"
                print(f"  {one}/{other} {what:8} {statistics.median(ratios):.2f} ({span})")


def loads(options: argparse.Namespace, folder: Path) -> None:
    """Loading at int4, without and with what is kept; the second load of a cache counts."""
    plugin, cache = folder / "exo-onnx", str(folder / "cache")
    for what, place in (("no cache", ""), ("fills it", cache), ("cache", cache)):
        command, settings = ours(plugin, options.model, 2, "int4", "load", cache=place)
        done = subprocess.run(
            [str(part) for part in command],
            env=os.environ | settings,
            capture_output=True,
            text=True,
        )
        figures = json.loads(done.stdout)
        print(f"  {what:9}", ", ".join(f"{key} {value:.1f}" for key, value in figures.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--llama-bench", type=Path)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--genai", type=Path)
    parser.add_argument("--genai-model", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for variant in ("onnx", "numpy"):
            rendered(variant, folder / f"exo-{variant}")
        loads(options, folder)
        for threads in options.threads or (1, 2):
            load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
            print(f"{options.model.name}, {threads} threads{load}")
            compare(options, folder, threads)


if __name__ == "__main__":
    main()
