"""librkllmrt.so in the process: found, told apart, and called; every failure a sentence.

Never run on an NPU: it is written after the vendor's headers, and tried against a library that
plays them.
"""

import ctypes as c
import mmap
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..contract import Sampling
from . import abi as layouts
from .abi import VERSIONS, Abi, abi_of

NAME = "librkllmrt.so"
Result = Callable[[bytes, int | None, int], None]  # text, id, state; on the library's thread

# What the library prints of itself; it has no call for it.
_VERSION = re.compile(rb"rkllm-runtime version[:= ]{1,3}v?(\d{1,2}\.\d{1,2}\.\d{1,2})(?!\d|b)")
_ALONE = re.compile(rb"\0v?(1\.[1-3]\.\d)\0")
# Symbols that came with a group: the newest that is there rules out the ones before it.
_SINCE = (("rkllm_get_kv_cache_size", "1.2.1"), ("rkllm_clear_kv_cache", "1.2.0"))
_CALLED = ("rkllm_createDefaultParam", "rkllm_init", "rkllm_run", "rkllm_abort", "rkllm_destroy")


class RuntimeLibraryError(RuntimeError):
    """The runtime library, or a model of its, can't be used; the text says why."""


@dataclass(frozen=True)
class Start:
    """What a model is started with. cpus: a mask of the board's, 0 for the library's own choice.

    context: tokens, 0 for the library's own.
    """

    model: Path
    context: int = 0
    sampling: Sampling = Sampling()  # noqa: RUF009 - frozen, and neutral
    cpus: int = 0


@dataclass(frozen=True)
class Run:
    """One run. keep: go on behind what the cache has of the last one; limit: tokens."""

    ids: tuple[int, ...]
    limit: int
    sampling: Sampling
    keep: bool = False


class Library:
    """One library, one model at a time. Every call may wait: use a thread, but for abort()."""

    def __init__(self, path: Path, version: str | None = None) -> None:
        """Load it. version: the user's word, where it can't be told. Raises RuntimeLibraryError."""
        self.path, own = path, version_of(path)
        if version and own and VERSIONS.get(own, own) != VERSIONS.get(version):
            raise RuntimeLibraryError(
                f"{path} says that it is version {own}, and RKLLM_RUNTIME_VERSION is {version}: "
                "unset that"
            )
        self.version = version or own or ""
        try:
            self._calls: Any = c.CDLL(str(path))
        except OSError as error:
            raise RuntimeLibraryError(f"{path} can't be loaded: {error}") from None
        self.abi = self._abi()
        if wrong := self.abi.check():
            raise RuntimeLibraryError(f"{path} is not laid out as this Python lays it out: {wrong}")
        self._handle: Any = None
        self._on_result: Result | None = None
        returns = c.c_int if self.abi.stops else None
        form = c.CFUNCTYPE(returns, c.POINTER(self.abi.result), c.c_void_p, c.c_int)
        self._callback = form(self._called)  # kept: the library has its address
        self._calls.rkllm_createDefaultParam.restype = self.abi.param
        self._defaults = self._plausible(self._calls.rkllm_createDefaultParam())
        self.context = 0

    def _abi(self) -> Abi:
        """The group of the library's version, where its symbols don't contradict."""
        since = next((group for name, group in _SINCE if hasattr(self._calls, name)), "1.1")
        called = (*_CALLED, "rkllm_clear_kv_cache")[: 5 if since == "1.1" else 6]
        if missing := [name for name in called if not hasattr(self._calls, name)]:
            raise RuntimeLibraryError(
                f"{self.path} is no RKLLM runtime, or not a whole one: it has no "
                f"{', '.join(missing)}"
            )
        # What is told alone by its symbols needs no version.
        version = self.version or {"1.1": "1.1.4", "1.2.0": "1.2.0"}.get(since, "")
        known = f"known are {', '.join(VERSIONS)}"
        if not version:
            raise RuntimeLibraryError(
                f"{self.path} does not say its version, and 1.2.3 called as 1.3.0 crashes: set "
                f"RKLLM_RUNTIME_VERSION to what it prints when a model is loaded ({known})"
            )
        abi = abi_of(version)
        if abi is None:
            raise RuntimeLibraryError(f"{self.path} is version {version}, unknown here; {known}")
        if since != (abi.name if abi.name != "1.3.0" else "1.2.1"):
            raise RuntimeLibraryError(
                f"{self.path} should be version {version}, but has the symbols of {since}: set "
                "RKLLM_RUNTIME_VERSION to what it prints when a model is loaded"
            )
        return abi

    def _plausible(self, param: Any) -> Any:
        """The defaults, where they read as such: another layout's would not."""
        right = (
            0 < param.max_context_len <= 1 << 20
            and -1 <= param.max_new_tokens <= 1 << 20
            and 0 <= param.top_k <= 1 << 20
            and 0 <= param.top_p <= 1
            and 0 <= param.temperature <= 5
            and 0 <= param.repeat_penalty <= 5
            and 0 <= param.mirostat <= 2
        )
        if not right:
            raise RuntimeLibraryError(
                f"{self.path} has other defaults than version {self.abi.name} lays out: set "
                "RKLLM_RUNTIME_VERSION to what it prints when a model is loaded"
            )
        return param

    def start(self, start: Start) -> None:
        """Load a model. Raises RuntimeLibraryError."""
        if not start.model.is_file():
            raise RuntimeLibraryError(f"{start.model} is not there")
        param = self._calls.rkllm_createDefaultParam()
        path = os.fsencode(start.model)
        param.model_path = path
        param.max_context_len = start.context or param.max_context_len
        # Before 1.3.0 a run has no limit of its own: an abort ends it.
        param.max_new_tokens = param.max_context_len
        param.skip_special_token, param.is_async = False, False
        _fill(param, start.sampling, self._defaults.top_k)
        extend = param.extend_param
        if start.cpus and hasattr(extend, "enabled_cpus_mask"):
            extend.enabled_cpus_num = start.cpus.bit_count()
            extend.enabled_cpus_mask = start.cpus
        handle = c.c_void_p()
        third: Any = self._callback
        if self.abi.own_limits:
            callbacks = layouts.Callbacks(c.cast(self._callback, c.c_void_p).value)
            third = c.byref(callbacks)
        code = self._calls.rkllm_init(c.byref(handle), c.byref(param), third)
        if code != 0 or not handle.value:
            raise RuntimeLibraryError(
                f"the runtime {self.version or self.abi.name} did not take {start.model.name} "
                f"(rkllm_init gave {code}): no .rkllm file, one of another toolkit's version or "
                "for another chip, or too little memory. It says more on its own output"
            )
        self._handle, self.context = handle, param.max_context_len

    def run(self, run: Run, on_result: Result) -> int:
        """One run, to its end; what rkllm_run gave, 0 for success."""
        ids = (c.c_int32 * len(run.ids))(*run.ids)
        source, infer = self.abi.input(), self.abi.infer()
        source.input_type = layouts.TOKENS
        source.token_input = layouts.Tokens(c.cast(ids, c.POINTER(c.c_int32)), len(run.ids))
        infer.mode = layouts.GENERATE
        if hasattr(source, "role"):
            source.role = b"user"
        if hasattr(infer, "keep_history"):
            infer.keep_history = 1
            if not run.keep:
                self._clear()
        if self.abi.own_limits:
            sampling = layouts.Sampling(mirostat_tau=self._defaults.mirostat_tau)
            sampling.mirostat_eta = self._defaults.mirostat_eta
            _fill(sampling, run.sampling, self._defaults.top_k)
            infer.sampling_params = c.pointer(sampling)
            infer.max_new_tokens = run.limit
        self._on_result = on_result
        try:
            code: int = self._calls.rkllm_run(self._handle, c.byref(source), c.byref(infer), None)
            return code
        finally:
            self._on_result = None

    def _clear(self) -> None:
        if self.abi.name == "1.2.0":
            self._calls.rkllm_clear_kv_cache(self._handle, 0)
        else:
            self._calls.rkllm_clear_kv_cache(self._handle, 0, None, None)

    def _called(self, result: Any, _: Any, state: int) -> int:
        """On the library's thread; the pointers are valid in here alone."""
        on_result = self._on_result
        if on_result is not None:
            text, token = (result[0].text, result[0].token_id) if result else (None, None)
            on_result(text or b"", token, state)
        return 0

    def cached(self) -> int | None:
        """How many positions the cache holds; None where the library can't say."""
        if not hasattr(self._calls, "rkllm_get_kv_cache_size"):
            return None
        sizes = (c.c_int * 16)()
        code = self._calls.rkllm_get_kv_cache_size(self._handle, sizes)
        return int(sizes[0]) if code == 0 else None

    def abort(self) -> None:
        """End the run that is under way; it may take a while to return."""
        if self._handle is not None:
            self._calls.rkllm_abort(self._handle)

    def stop(self) -> None:
        """Give the model back."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._calls.rkllm_destroy(handle)


def _fill(param: Any, sampling: Sampling, top_k: int) -> None:
    """A sampling in the library's members. top_k: its own, where none was asked for."""
    param.top_k = sampling.top_k or top_k
    param.top_p, param.temperature = sampling.top_p, sampling.temperature
    param.repeat_penalty = sampling.repetition_penalty
    param.frequency_penalty = sampling.frequency_penalty
    param.presence_penalty = sampling.presence_penalty
    if not sampling.temperature:  # the most likely token, whatever it makes of a temperature of 0
        param.top_k, param.top_p, param.temperature = 1, 1.0, 1.0


def version_of(path: Path) -> str | None:
    """The version that a library has in it; None where it has none, or several."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            versions = set(_VERSION.findall(data)) or set(_ALONE.findall(data))
    except (OSError, ValueError):
        return None
    return versions.pop().decode() if len(versions) == 1 else None
