"""TensorRT compiles a graph for minutes: what it made is kept, and is for every length."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnxruntime as ort

from ...names import ENGINE_NAME
from ..repository.files import exo_home

NAMES = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-cu12-libs", "tensorrt-cu13-libs")


def compiled(provider: str, device: int) -> dict[str, str]:
    """The options that keep engines and timings; empty for other providers.

    An engine is of use to the very versions and the very kind of GPU that made it.
    """
    if provider != "Tensorrt":
        return {}
    place = f"ort-{ort.__version__}-trt-{_tensorrt()}-{_gpu(device)}"
    folder = exo_home() / ENGINE_NAME / "tensorrt" / place
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder),
        "trt_fp16_enable": "True",
    }


def profiles(
    shapes: dict[str, list[int | str]], lengths: dict[str, tuple[int, int, int]]
) -> dict[str, str]:
    """Least, usual and most of every dynamic input: without them an engine is built per length.

    shapes: the inputs', where a text is a dynamic size; lengths: what it can be.
    """
    options = {}
    for n, bound in enumerate(("min", "opt", "max")):
        texts = []
        for name, shape in shapes.items():
            if any(isinstance(size, str) for size in shape):
                sizes = [size if isinstance(size, int) else lengths[size][n] for size in shape]
                texts.append(f"{name}:{'x'.join(map(str, sizes))}")
        options[f"trt_profile_{bound}_shapes"] = ",".join(texts)
    return options


def _tensorrt() -> str:
    for name in NAMES:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def _gpu(device: int) -> str:
    """The GPU's name, as the driver has it under /proc; its number where it is not there."""
    paths = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    if device < len(paths):
        for line in paths[device].read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "Model":
                return "-".join(value.split())
    return f"gpu{device}"
