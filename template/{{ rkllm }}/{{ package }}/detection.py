"""Is there a Rockchip NPU that RKLLM models run on?"""

from pathlib import Path

CHIPS = ("rk3588s", "rk3588", "rk3576")
LIBRARY = "librkllmrt.so"


def detect_device(root: Path = Path("/")) -> str | None:
    """The chip's name with a capital RK, or None. Never raises.

    root is where the file system begins; the tests give another one.
    """
    try:
        compatible = (root / "proc/device-tree/compatible").read_bytes()
    except (OSError, ValueError):
        return None
    chips = {
        entry.rpartition(",")[2].strip().lower()
        for entry in compatible.decode("ascii", "replace").split("\0")
    }
    return next((f"RK{chip[2:].upper()}" for chip in CHIPS if chip in chips), None)


def find_library(root: Path = Path("/"), home: Path | None = None) -> Path | None:
    """Where the RKLLM runtime library lies on this machine, or None. Never raises."""
    try:
        folders = [root / "usr/lib", root / "usr/local/lib"]
        folders.append((home or Path.home()) / "RKLLAMA/lib")
        return next((path for f in folders if (path := f / LIBRARY).is_file()), None)
    except (OSError, RuntimeError, ValueError):
        return None
