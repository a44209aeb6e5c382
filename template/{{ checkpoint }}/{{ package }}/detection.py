"""Which CPU this machine has, and the widest vector instructions that it knows."""

import platform
from pathlib import Path

# The widest first, as Linux spells them; `asimd` is Arm's NEON.
_SIMD = ("avx512f", "avx2", "avx", "sse4_2", "sve2", "sve", "asimd", "neon", "lasx", "lsx")
_NAMES = ("model name", "Hardware", "cpu model")
_FLAGS = ("flags", "Features", "features")


def detect_device(root: Path = Path("/")) -> str | None:
    """The CPU and its vector instructions, as "AMD EPYC 7763 (avx2)"; None where it has no name."""
    facts = _cpu(root)
    name = next((facts[key] for key in _NAMES if facts.get(key)), "") or _board(root)
    name = name or platform.machine()
    flags = next((facts[key] for key in _FLAGS if key in facts), "").split()
    if not flags and platform.system() == "Darwin" and platform.machine() == "arm64":
        flags = ["neon"]  # every one of Apple's has it
    simd = next((known for known in _SIMD if known in flags), "")
    return (f"{name} ({simd})" if simd else name) or None


def _cpu(root: Path) -> dict[str, str]:
    """The first processor of /proc/cpuinfo, and what stands behind the last."""
    facts: dict[str, str] = {}
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            facts.setdefault(key.strip(), " ".join(value.split()))
    return facts


def _board(root: Path) -> str:
    """The board's name: Arm's kernels name no CPU."""
    return _text(root / "proc/device-tree/model").strip("\0 \n")


def _text(path: Path) -> str:
    """A file's text, empty where it can't be read."""
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""
