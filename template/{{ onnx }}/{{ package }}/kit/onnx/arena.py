"""The memory that exports may take on the CPU: one arena of the process's, with an end."""

import os
from functools import cache

import onnxruntime as ort

SHARE = 0.75  # of the machine's memory
_USED = "session.use_env_allocators"


@cache
def _register() -> None:
    """Once in a process. What an export gives back stays here for the next one."""
    info = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    same = 1  # grow by what is asked for
    most = {"max_mem": int(SHARE * memory()), "arena_extend_strategy": same}
    ort.create_and_register_allocator(info, ort.OrtArenaCfg(most))


def memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def bound(options: ort.SessionOptions) -> None:
    """Let a session's arrays be in the arena: one that is too large is an error of its step."""
    if hasattr(os, "sysconf"):
        _register()
        options.add_session_config_entry(_USED, "1")
