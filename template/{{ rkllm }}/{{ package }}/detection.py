"""Which Rockchip NPU this machine has."""

from pathlib import Path

# Names as the kernel's device trees have them, the longer first.
_CHIPS = ("rk3588s", "rk3588", "rk3576")
_LIBRARIES = ("usr/lib", "usr/local/lib")


def detect_device(root: Path = Path("/")) -> str | None:
    """The chip's name, or "rockchip-npu" where only its runtime library is there; else None."""
    try:
        names = (root / "proc/device-tree/compatible").read_bytes().lower().split(b"\0")
    except OSError:
        names = []
    chips = {name.rpartition(b",")[2].decode("ascii", "replace") for name in names}
    name = next((chip for chip in _CHIPS if chip in chips), None)
    return name or ("rockchip-npu" if library(root) else None)


def library(root: Path = Path("/")) -> Path | None:
    """Where librkllmrt.so is, the runtime that a server on this machine needs."""
    folders = [root / folder for folder in _LIBRARIES]
    if root == Path("/"):
        folders.append(Path.home() / "RKLLAMA" / "lib")
    try:
        return next((f / "librkllmrt.so" for f in folders if (f / "librkllmrt.so").exists()), None)
    except OSError:
        return None
