"""What the NumPy variant makes of its CPU: ratios, each measured in one run, on random weights.

Run by hand, on a machine that does nothing else, in this repository's environment with NumPy,
tokenizers and threadpoolctl, and with torch and transformers for the comparison with them:

    python tests/benchmarks/numpy_variant.py [--threads 1] [--shape smollm2-135m] [--rounds 9]

decode           the bound (each matrix once, by NumPy's matrix-vector product) over a token's time
decode/torch     torch's time of a token over ours; float32, as everything here
prefill/torch    torch's time of a prompt of 512 tokens over ours
2000/100         a token's time at position 2000 over one's at 100
memory           peak memory over float32 weights and KV cache: with and without Python itself
half             bytes read for half of the layers, less the embedding, over those for all
"""

import argparse
import atexit
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
THREADS = ("EXO_NUMPY_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_ALL = {"hidden_act": "silu", "eos_token_id": 2, "tie_word_embeddings": True}
SHAPES = {
    "smollm2-135m": _ALL
    | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000.0,
    },
    "qwen2.5-0.5b": _ALL
    | {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "use_sliding_window": False,
    },
}
TOKENS, PROMPT = 8, 512


@cache
def rendered() -> str:
    """The package of a plugin rendered from the working tree; on the path."""
    from copier import run_copy

    folder = tempfile.TemporaryDirectory(prefix="exo-numpy-")
    atexit.register(folder.cleanup)
    data = {"project_name": "exo-numpy", "variant": "numpy"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of changes that are not committed: they are rendered too
        run_copy(str(REPOSITORY), folder.name, data=data, vcs_ref="HEAD", defaults=True, quiet=True)
    sys.path.insert(0, folder.name)
    return "exo_numpy"


def variant(module: str):
    """A module of the rendered variant."""
    return import_module(f"{rendered()}.{module}")


def layers_of(folder: Path, part: float = 1.0):
    """The first layers of a checkpoint."""
    total = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    return variant("kit.contract").Layers("random", 0, round(total * part) - 1, total)


def loaded(folder: Path, part: float = 1.0):
    """A backend with the first layers of a checkpoint."""
    backend = variant("backend").Backend()
    backend.load(layers_of(folder, part), folder, None)
    return backend


def matrices(model) -> list:
    """Each matrix that a token is multiplied with."""
    inside = [w for layer in model.layers for w in layer.values() if w.ndim == 2]
    return inside if model.head is None else [*inside, model.head]


def seconds(work: Callable[[], object]) -> float:
    """How long something takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median seconds of each work; they take turns, so that a busy moment meets all alike."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for n in range(rounds + 1):
        for name, work in works.items():
            time.sleep(0.05)  # threads of one library that still spin would slow the next
            spent = seconds(work)
            if n:
                taken[name].append(spent)
    return {name: statistics.median(times) for name, times in taken.items()}


def torch_works(folder: Path, ids, threads: int) -> dict[str, Callable[[], object]]:
    """The same prompt and tokens in transformers; nothing where it is not installed."""
    try:
        import torch
        import transformers
    except ImportError:
        return {}
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    transformers.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt, one = torch.from_numpy(ids), torch.from_numpy(ids[:, :1])
    cache = model(prompt[:, :100], use_cache=True, logits_to_keep=1).past_key_values

    def decode() -> None:
        for _ in range(TOKENS):
            model(one, past_key_values=cache, use_cache=True, logits_to_keep=1)

    def prefill() -> None:
        model(prompt, use_cache=True, logits_to_keep=1)

    return {"torch decode": decode, "torch prefill": prefill}


def speed(folder: Path, threads: int, rounds: int) -> dict[str, float]:
    """Ratios of times."""
    import numpy as np

    backend = loaded(folder)
    ids = np.random.default_rng(0).integers(0, 1000, (1, 2000))
    vectors = {n: np.ones(n, np.float32) for n in {w.shape[1] for w in matrices(backend._model)}}
    backend.step("early", ids[:, :100])
    backend.step("late", ids)

    def bound() -> None:
        for _ in range(TOKENS):
            for w in matrices(backend._model):
                w @ vectors[w.shape[1]]

    def decode(request_id: str) -> None:
        for _ in range(TOKENS):
            backend.step(request_id, ids[:, :1])

    def prefill() -> None:
        backend.step("prompt", ids[:, :PROMPT])
        backend.forget("prompt")

    works = {
        "bound": bound,
        "decode": lambda: decode("early"),
        "late": lambda: decode("late"),
        "prefill": prefill,
    }
    took = alternate(works | torch_works(folder, ids[:, :PROMPT], threads), rounds)
    outputs = {
        "ms a token": took["decode"] / TOKENS * 1e3,
        "decode": took["bound"] / took["decode"],
        "2000/100": took["late"] / took["decode"],
        "prefill tokens/s": PROMPT / took["prefill"],
    }
    if "torch decode" in took:
        outputs["decode/torch"] = took["torch decode"] / took["decode"]
        outputs["prefill/torch"] = took["torch prefill"] / took["prefill"]
    return outputs


def status(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * 1024


def memory(folder: Path, *_: int) -> dict[str, float]:
    """Peak memory of loading, a prompt of 512 tokens, and 64 more."""
    import numpy as np

    variant("backend")
    python = status("VmRSS")
    backend = loaded(folder)
    ids = np.zeros((1, PROMPT), np.int64)
    backend.step("request", ids)
    for _ in range(64):
        backend.step("request", ids[:, :1])
    cache = backend._caches["request"]
    needed = sum(w.nbytes for w in matrices(backend._model)) + cache.keys.nbytes
    needed += cache.values.nbytes
    peak = status("VmHWM")
    return {"memory": peak / needed, "memory less Python": (peak - python) / needed}


def read_bytes(folder: Path, part: float) -> int:
    """Bytes that the disk gave for loading the first layers and one step."""
    import numpy as np

    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def count() -> int:
        lines = Path("/proc/self/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))

    variant("backend")
    before = count()
    loaded(folder, part).step("request", np.zeros((1, 1), np.int64))
    return count() - before


def half(folder: Path, *_: int) -> dict[str, float]:
    """What half of the layers costs, less the embedding, of what all cost."""
    config = json.loads((folder / "config.json").read_text())
    embedding = 2 * config["vocab_size"] * config["hidden_size"]
    every = read_bytes(folder, 1.0)
    if not every:
        return {}  # the folder lies in memory
    return {"half": (read_bytes(folder, 0.5) - embedding) / every}


WORKS = {"speed": speed, "memory": memory, "half": half}


def in_a_process(work: str, folder: Path, threads: int, rounds: int) -> dict[str, float]:
    """A measurement in a process of its own: its BLAS has this many threads, always."""
    command = [sys.executable, __file__, "--work", work, "--folder", str(folder)]
    command += ["--threads", str(threads), "--rounds", str(rounds)]
    env = os.environ | dict.fromkeys(THREADS, str(threads))
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dtype", choices=["F32", "F16", "BF16"], default="BF16")
    parser.add_argument("--work", choices=WORKS, action="append", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        figures = WORKS[options.work[0]](options.folder, options.threads[0], options.rounds)
        print(json.dumps(figures))
        return
    for shape in options.shape or SHAPES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write = variant("kit.llama.random_checkpoint").write_checkpoint
            write(folder, SHAPES[shape], dtype=options.dtype)
            for threads in options.threads or (1, 2):
                print(f"{shape}, {threads} threads, {options.dtype}")
                for work in options.work or WORKS:
                    figures = in_a_process(work, folder, threads, options.rounds)
                    for title, value in figures.items():
                        print(f"  {title:20} {value:8.3f}", flush=True)


if __name__ == "__main__":
    main()
