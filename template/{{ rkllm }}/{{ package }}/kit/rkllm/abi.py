"""How librkllmrt.so lays out its data: declarations of our own after the vendor's rkllm.h.

Four groups of versions share a layout each. Passing one to another version crashes the process, so
sizes and offsets are compared before the first call (check), and an unknown version is refused.
Where a group knows more of a member than is used here, the rest is reserved.
"""

import ctypes as c
from dataclasses import dataclass
from typing import Any

NORMAL, WAITING, FINISH, ERROR = range(4)  # LLMCallState
TOKENS = 1  # RKLLMInputType: a prompt of ids
GENERATE = 0  # RKLLMInferMode

_TOP = (("model_path", c.c_char_p), ("max_context_len", c.c_int32), ("max_new_tokens", c.c_int32))
_KEEP = (("n_keep", c.c_int32),)
_SAMPLING = (
    ("top_p", c.c_float), ("temperature", c.c_float), ("repeat_penalty", c.c_float),
    ("frequency_penalty", c.c_float), ("presence_penalty", c.c_float), ("mirostat", c.c_int32),
    ("mirostat_tau", c.c_float), ("mirostat_eta", c.c_float),
)  # fmt: skip
_IMAGE = (("img_start", c.c_char_p), ("img_end", c.c_char_p), ("img_content", c.c_char_p))


class Tokens(c.Structure):
    """RKLLMTokenInput."""

    _fields_ = (("input_ids", c.POINTER(c.c_int32)), ("n_tokens", c.c_size_t))


class OldExtend(c.Structure):
    """RKLLMExtendParam of 1.1."""

    _fields_ = (("base_domain_id", c.c_int32), ("reserved", c.c_uint8 * 112))


class Extend(c.Structure):
    """RKLLMExtendParam since 1.2.0."""

    _fields_ = (
        ("base_domain_id", c.c_int32), ("embed_flash", c.c_int8), ("enabled_cpus_num", c.c_int8),
        ("enabled_cpus_mask", c.c_uint32), ("reserved", c.c_uint8 * 108),
    )  # fmt: skip


class Sampling(c.Structure):
    """RKLLMSamplingParam, since 1.3.0 a run's own."""

    _fields_ = (("top_k", c.c_int32), *_SAMPLING)


class Callbacks(c.Structure):
    """RKLLMCallback, the third argument of rkllm_init since 1.3.0."""

    _fields_ = (("result", c.c_void_p), ("userdata", c.c_void_p), ("rest", c.c_void_p * 4))


class Hidden(c.Structure):
    """RKLLMResultLastHiddenLayer, and RKLLMResultLogits alike."""

    _fields_ = (("values", c.c_void_p), ("width", c.c_int), ("num_tokens", c.c_int))


class Performance(c.Structure):
    """RKLLMPerfStat, since 1.2.1."""

    _fields_ = (
        ("prefill_time_ms", c.c_float), ("prefill_tokens", c.c_int),
        ("generate_time_ms", c.c_float), ("generate_tokens", c.c_int),
        ("memory_usage_mb", c.c_float),
    )  # fmt: skip


def _structure(name: str, *fields: tuple[str, Any]) -> Any:
    return type(name, (c.Structure,), {"_fields_": fields})


_FLAGS = (("skip_special_token", c.c_bool), ("is_async", c.c_bool))
_FLAGS_130 = (_FLAGS[0], ("ignore_eos_token", c.c_bool), _FLAGS[1])
_TOP_K = ("top_k", c.c_int32)
_ROLE = (("role", c.c_char_p), ("enable_thinking", c.c_bool), ("input_type", c.c_int))
_RESULT = (("text", c.c_char_p), ("token_id", c.c_int32), ("last_hidden_layer", Hidden))
_INFER = (("mode", c.c_int), ("lora_params", c.c_void_p), ("prompt_cache_params", c.c_void_p))
_HISTORY = ("keep_history", c.c_int)
_LIMITS = (("sampling_params", c.POINTER(Sampling)), _HISTORY, ("max_new_tokens", c.c_int32))
_BARE = (("input_type", c.c_int), ("token_input", Tokens), ("rest", c.c_void_p))
_EXTEND, _OLD_EXTEND = ("extend_param", Extend), ("extend_param", OldExtend)
_PARAM = (*_TOP, _TOP_K, *_KEEP, *_SAMPLING)


@dataclass(frozen=True)
class Abi:
    """One group's structures, and the sizes and offsets that the vendor's header gives them.

    stops: whether the callback's result is looked at. own_limits: a run has its own limit and
    sampling; before, rkllm_init sets them. running: what rkllm_is_running says of a run.
    """

    name: str
    param: Any
    input: Any
    infer: Any
    result: Any
    sizes: dict[str, int]
    stops: bool = True
    own_limits: bool = False
    running: int = 0

    def check(self) -> str:
        """Where this Python's layout is another; empty where it isn't."""
        mine = {
            "param": c.sizeof(self.param),
            "extend": c.sizeof(dict(self.param._fields_)["extend_param"]),
            "input": c.sizeof(self.input),
            "union": self.input.token_input.offset,
            "infer": c.sizeof(self.infer),
            "result": c.sizeof(self.result),
            "token_id": self.result.token_id.offset,
            "pointer": c.sizeof(c.c_void_p),
        }
        wrong = [f"{k} {v}, not {self.sizes[k]}" for k, v in mine.items() if v != self.sizes[k]]
        return ", ".join(wrong)


def _sizes(param: int, extend: int, input: int, union: int, infer: int, result: int) -> Any:
    return {
        "param": param, "extend": extend, "input": input, "union": union, "infer": infer,
        "result": result, "token_id": 8, "pointer": 8,
    }  # fmt: skip


ABIS = (
    Abi(
        "1.1",
        _structure("Param110", *_TOP, _TOP_K, *_SAMPLING, *_FLAGS, *_IMAGE, _OLD_EXTEND),
        _structure("Input110", *_BARE),
        _structure("Infer110", *_INFER),
        _structure("Result110", *_RESULT),
        _sizes(200, 116, 32, 8, 24, 32),
        stops=False,
    ),
    Abi(
        "1.2.0",
        _structure("Param120", *_PARAM, *_FLAGS, *_IMAGE, _EXTEND),
        _structure("Input120", *_BARE),
        _structure("Infer120", *_INFER, _HISTORY),
        _structure("Result120", *_RESULT, ("logits", Hidden)),
        _sizes(208, 120, 32, 8, 32, 48),
        stops=False,
    ),
    Abi(
        "1.2.1",
        _structure("Param121", *_PARAM, *_FLAGS, *_IMAGE, _EXTEND),
        _structure("Input121", *_ROLE, ("token_input", Tokens), ("rest", c.c_void_p * 4)),
        _structure("Infer121", *_INFER, _HISTORY),
        _structure("Result121", *_RESULT, ("logits", Hidden), ("perf", Performance)),
        _sizes(208, 120, 64, 16, 32, 72),
    ),
    Abi(
        "1.3.0",
        _structure("Param130", *_PARAM, *_FLAGS_130, _EXTEND),
        _structure("Input130", *_ROLE, ("token_input", Tokens), ("rest", c.c_void_p * 16)),
        _structure("Infer130", *_INFER, *_LIMITS),
        _structure("Result130", *_RESULT, ("logits", Hidden), ("perf", Performance)),
        _sizes(184, 120, 160, 16, 40, 72),
        own_limits=True,
        running=1,
    ),
)
# The versions that were read, by the group that they are of.
VERSIONS = {
    "1.1.0": "1.1", "1.1.1": "1.1", "1.1.2": "1.1", "1.1.3": "1.1", "1.1.4": "1.1",
    "1.2.0": "1.2.0", "1.2.1": "1.2.1", "1.2.2": "1.2.1", "1.2.3": "1.2.1", "1.3.0": "1.3.0",
}  # fmt: skip


def abi_of(version: str) -> Abi | None:
    """The group of a version; None where nobody has read its header."""
    return next((abi for abi in ABIS if abi.name == VERSIONS.get(version)), None)
