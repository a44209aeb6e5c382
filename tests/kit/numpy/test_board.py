"""The operations board finds what is wrong in the operation where it is, and nowhere else."""

import sys
import threading
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from checkpoints import CONFIGS

from exo_kit.kit.board.cases import DEFAULT, OPERATIONS, Case, of_model, parsed
from exo_kit.kit.board.child import verdict
from exo_kit.kit.board.measure import judge
from exo_kit.kit.command.cli import main
from exo_kit.kit.llama import llama
from exo_kit.kit.llama.config import Config
from exo_kit.kit.llama.operations import OnDevice, read
from exo_kit.kit.llama.random_checkpoint import write_checkpoint
from exo_kit.kit.llama.table import Own
from exo_kit.plugin import PLUGIN

FAULTS = {}


def fault(operation):
    """Register a function as an operation with a fault."""

    def register(function):
        FAULTS[function.__name__] = (operation, function)
        return function

    return register


def attend(q, k, v, part, n, window, config, *, softmax=None, group=np.repeat, room=None):
    """Attention of one request, written once more in the plainest way."""
    position, end = part.position, part.end
    part.keys[n][:, :, position:end] = k.transpose(1, 2, 0)
    part.values[n][:, position:end] = v.transpose(1, 0, 2)
    end, shared = room or end, config.heads // config.kv_heads
    keys, values = part.keys[n][:, :, :end], part.values[n][:, :end]
    keys, values = group(keys, shared, 0), group(values, shared, 0)  # [H, E, T], [H, T, E]
    scores = np.einsum("she,het->hst", q, keys)  # [H, S, T]
    age = np.arange(position, part.end)[:, None] - np.arange(end)
    hidden = (age < 0) | (age >= (window or np.inf))
    scores = np.where(hidden, -np.inf, scores)
    powers = np.exp(scores - (scores.max(-1, keepdims=True) if softmax is None else softmax))
    powers /= powers.sum(-1, keepdims=True)
    mixed = np.einsum("hst,hte->she", powers, values).reshape(len(q), -1)
    return mixed.astype(np.float32)


@fault("rms_norm")
def a_wrong_epsilon(x, weight, eps):
    return llama.rms_norm(x, weight, 1e-6)


@fault("rotate")
def a_transposed_rotation(x, cos, sin):
    return llama.rotate(x, cos, -sin)


@fault("rotate")
def an_interleaved_rotation(x, cos, sin):
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    cos, sin = cos[:, :, 0], sin[:, :, 1]
    both = pairs[..., 0] * cos - pairs[..., 1] * sin, pairs[..., 1] * cos + pairs[..., 0] * sin
    return np.stack(both, -1).reshape(x.shape)


@fault("attend")
def off_by_one_in_the_window(q, k, v, part, n, window, config):
    return attend(q, k, v, part, n, window and window + 1, config)


@fault("linear")
def a_missing_bias(x, weight, bias):
    return x @ weight.T


@fault("attend")
def heads_grouped_wrongly(*arguments):
    return attend(*arguments, group=lambda x, times, axis: np.tile(x, (times, 1, 1)))


@fault("linear")
def a_race(x, weight, bias):
    y = np.zeros((len(x), len(weight)), np.float32)
    half = len(weight) // 2

    def second():
        time.sleep(0.001)
        y[:, half:] = x @ weight[half:].T

    threading.Thread(target=second).start()
    y[:, :half] = x @ weight[:half].T
    return y if bias is None else y + bias


_CALLS = Counter()


@fault("mlp")
def a_race_that_is_lost_now_and_then(x, w, op):
    _CALLS["mlp"] += 1
    y = llama.mlp(x, w, op)
    return y + (_CALLS["mlp"] % 9 == 0)


@fault("attend")
def nan_at_length_1(q, *others):
    y = attend(q, *others)
    return y * np.float32(np.nan) if len(q) == 1 else y


@fault("attend")
def an_overflow_in_softmax(*arguments):
    with np.errstate(all="ignore"):
        return attend(*arguments, softmax=np.float32(0))


@fault("attend")
def garbage_beyond_the_length(q, k, v, part, n, window, config):
    return attend(q, k, v, part, n, window, config, room=part.keys.shape[-1])


@fault("linear")
def garbage_behind_the_rows(x, weight, bias):
    rows = -(-len(x) // 4) * 4  # in blocks of four
    whole = np.lib.stride_tricks.as_strided(x, (rows, x.shape[1]), x.strides)
    return llama.linear(whole, weight, bias)[: len(x)] + whole[-1, 0] * 0


_CACHE = {}


@fault("linear")
def a_stale_cache_of_weights(x, weight, bias):
    return llama.linear(x, _CACHE.setdefault(weight.shape, weight.copy()), bias)


@fault("attend")
def a_stale_cache_of_keys(q, k, v, part, n, window, config):
    y = attend(q, k, v, part, n, window, config)
    keys = _CACHE.setdefault(part.keys.shape, part.keys.copy())
    stale = replace(part, keys=keys)
    return attend(q, k, v, stale, n, window, config) if part.position else y


@fault("rms_norm")
def a_reused_buffer(x, weight, eps):
    buffer = _CACHE.setdefault(x.shape, np.empty(x.shape, np.float32))
    buffer[:] = llama.rms_norm(x, weight, eps)
    return buffer


@fault("rms_norm")
def an_argument_that_is_changed(x, weight, eps):
    x /= np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    return x * weight


@fault("embed")
def float64(ids, embedding):
    return embedding[ids].astype(np.float64)


@fault("attention")
def the_first_request_for_all(x, parts, n, cos, sin, *others):
    y = llama.attention(x, parts, n, cos, sin, *others)
    return np.concatenate([y[: parts[0].length]] * len(parts))[: len(x)] if parts[1:] else y


@fault("mlp")
def an_overflow_in_silu(x, w, op):
    gate = x @ w["mlp.gate_proj.weight"].T + w.get("mlp.gate_proj.bias", 0)
    with np.errstate(all="ignore"):
        gate = gate * np.exp(gate) / (1 + np.exp(gate))
    up = x @ w["mlp.up_proj.weight"].T + w.get("mlp.up_proj.bias", 0)
    return op.linear(gate * up, w["mlp.down_proj.weight"], w.get("mlp.down_proj.bias"))


def faults_of(own, cases=DEFAULT):
    """The operations that have a case which isn't right, each alone."""
    verdicts = [(case, verdict(str(case), own, timed=False)) for case in cases]
    return {case.operation: each for case, each in verdicts if each.state != "right"}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name):
    operation, function = FAULTS[name]
    _CACHE.clear()
    cases = [case for case in DEFAULT if case.operation == operation]
    faults = faults_of(Own({operation: function}), cases)
    assert faults[operation].state == "wrong", faults
    assert faults[operation].why


def test_the_reference_is_right_and_so_is_the_same_in_other_words():
    plain = {"attend": attend, "embed": lambda ids, embedding: embedding[ids]}
    assert faults_of(Own(plain)) == {}


def test_what_is_off_is_said_with_its_place_and_its_call():
    def late(x, weight, bias):
        y = llama.linear(x, weight, bias)
        y[-1, 3] += 0.5
        return y

    off = judge(parsed("linear rows=2"), Own({"linear": late}), timed=False)
    assert off.error > 0.1
    assert off.why.startswith("at [1, 3] it gives ")
    assert off.why.endswith("1 of 192 numbers are off")
    _CACHE.clear()
    stale = judge(parsed("linear"), Own({"linear": FAULTS["a_stale_cache_of_weights"][1]}))
    assert stale.why.startswith("with other weights of the same shapes, at [0, ")


def test_half_precision_is_right_with_its_tolerance():
    def half(x, weight, bias):
        y = (x.astype(np.float16) @ weight.T.astype(np.float16)).astype(np.float32)
        return y if bias is None else y + bias

    cases = [parsed(text) for text in ("linear rows=3", "mlp", "model rows=3 steps=2")]
    assert "linear" in faults_of(Own({"linear": half}), cases)
    assert faults_of(Own({"linear": half}, 1e-2), cases) == {}


def test_a_case_is_a_text_that_is_the_case():
    assert {parsed(str(case)) for case in DEFAULT} == set(DEFAULT)
    assert {case.operation for case in DEFAULT} == set(OPERATIONS)
    assert str(Case("linear", rows=3, bias=1, eps=1e-6)) == "linear rows=3 bias=1 eps=1e-06"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("lineer", "'lineer' is no operation: embed, "),
        ("linear row=3", "a case has no 'row', but rows, "),
        ("linear rows=x", "invalid literal"),
        ("linear rows=0", "sizes are above 0"),
        ("linear dtype=int8", "a dtype is one of float32, float16, bfloat16"),
        ("attend heads=3", "heads a multiple of kv_heads"),
    ],
)
def test_a_text_that_is_no_case_is_nothing_run(text, why, capsys):
    assert main(PLUGIN, ["ops", "--case", text]) == 2
    assert why in capsys.readouterr().err


def test_the_sizes_of_a_model_are_those_of_its_cases(tmp_path):
    write_checkpoint(tmp_path, CONFIGS["mistral"])
    cases = list(of_model(Config.from_folder(tmp_path)))
    assert {(c.hidden, c.inner, c.heads, c.kv_heads, c.window) for c in cases} == {
        (32, 56, 4, 2, 9)
    }
    assert faults_of(Own({}), cases) == {}


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"lineer": len}, "'lineer', which is none of embed, "),
        ({"linear": 3}, r"OPERATIONS\['linear'\] is 3, and no function"),
        ([], "no dict OPERATIONS"),
    ],
)
def test_a_table_that_is_none_is_a_sentence(table, why):
    module = type(sys)("operations")
    module.OPERATIONS = table
    with pytest.raises(ValueError, match=why):
        read(module)


def test_a_weights_copy_lives_as_long_as_the_weight():
    uploads = []

    def upload(weight):
        uploads.append(weight.sum())
        return weight.copy()

    on_device, weight = OnDevice(upload), np.ones(3, np.float32)
    assert on_device(weight) is on_device(weight)
    for n in range(5):  # the next one has the id of the one before
        weight = np.full(3, n, np.float32)
        np.testing.assert_array_equal(on_device(weight), weight)
    assert uploads == [3, 0, 3, 6, 9, 12]
    assert len(on_device._copies) == 1
