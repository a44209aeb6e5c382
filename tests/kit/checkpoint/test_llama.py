"""Each operation against its formula, written down once more in the plainest way."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from checkpoints import CONFIGS, LAYERS, tokens

from exo_kit.kit.llama import llama
from exo_kit.kit.llama.cache import Cache
from exo_kit.kit.llama.config import Config
from exo_kit.kit.llama.random_checkpoint import write_checkpoint
from exo_kit.kit.llama.rope import Rope
from exo_kit.kit.llama.rotation import frequencies, rotation, rotations
from exo_kit.kit.llama.weights import load_model

CONFIG = Config.from_dict(CONFIGS["llama"])  # 4 query heads, 2 key-value heads, head size 8
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape, np.float32)


def test_softmax_adds_up_to_one_and_bears_large_numbers():
    x = normal(3, 5) * 100
    powers = np.exp(x.astype(np.float64))
    expected = powers / powers.sum(-1, keepdims=True)
    np.testing.assert_allclose(llama.softmax(x.copy()), expected, rtol=1e-4, atol=1e-30)
    np.testing.assert_allclose(llama.softmax(x + 1e4).sum(-1), 1, rtol=1e-5)


def test_rms_norm_gives_a_mean_square_of_one():
    x, weight = normal(3, 32), normal(32)
    expected = x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-5) * weight
    np.testing.assert_allclose(llama.rms_norm(x, weight, 1e-5), expected, rtol=1e-5)
    assert np.isfinite(llama.rms_norm(np.zeros((1, 32), np.float32), weight, 1e-5)).all()


def test_silu_is_quiet_far_below_zero():
    x = np.array([-1000, -1, 0, 1, 1000], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = llama.silu(x)
    np.testing.assert_allclose(result, [0, -0.26894143, 0, 0.7310586, 1000], rtol=1e-6)


def test_linear_adds_a_bias_where_there_is_one():
    x, weight, bias = normal(2, 3), normal(5, 3), normal(5)
    expected = np.einsum("si,oi->so", x, weight)
    np.testing.assert_allclose(llama.linear(x, weight, None), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(llama.linear(x, weight, bias), expected + bias, rtol=1e-4, atol=1e-6)


def test_grouped_puts_the_query_heads_of_a_key_value_head_together():
    q = normal(3, 4, 8)  # [S, H, E]
    result = llama.grouped(q, CONFIG)
    assert result.shape == (2, 6, 8)
    np.testing.assert_array_equal(result[1, 3 + 2], q[2, 3])  # head 3 is the second of group 1
    np.testing.assert_array_equal(llama.ungrouped(result, 3), q.reshape(3, 32))


def test_rotation_makes_products_depend_on_the_distance_alone():
    q, k = normal(1, 1, 8), normal(1, 1, 8)

    def product(m, n):
        at_m, at_n = (rotation(np.array([position]), CONFIG) for position in (m, n))
        return float(np.vdot(llama.rotate(q, *at_m), llama.rotate(k, *at_n)))

    assert product(7, 3) == pytest.approx(product(204, 200), abs=1e-4)
    assert product(7, 3) != pytest.approx(product(7, 4), abs=1e-3)
    np.testing.assert_array_equal(llama.rotate(q, *rotation(np.arange(1), CONFIG)), q)


YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100}
OTHER = {"truncate": False, "beta_fast": 8, "beta_slow": 2, "mscale": 0.7, "mscale_all_dim": 1.3}
QWEN = YARN | {"original_max_position_embeddings": 32768, "rope_theta": 1e6}
DYNAMIC = {"type": "dynamic", "factor": 2.0}


@pytest.mark.parametrize(
    ("scaling", "length", "radians", "attention"),
    [
        (YARN, 0, [1, 0.0625, 0.0025, 0.00025], 1.138629436111989),
        (QWEN, 0, [1, 0.03162278, 0.000625, 7.905694e-06], 1.138629436111989),
        (YARN | OTHER, 0, [1, 0.025, 0.0025, 0.00025], 0.9295234923939468),
        (DYNAMIC, 50, [1, 0.1, 0.01, 0.001], 1),
        (DYNAMIC, 150, [1, 0.07937005, 0.006299605, 0.0005], 1),
    ],
)
def test_scaled_ropes_have_the_numbers_of_transformers(scaling, length, radians, attention):
    """Those of modeling_rope_utils, 5.24."""
    own = {"max_position_embeddings": 100, "rope_scaling": scaling}
    config = Config.from_dict(CONFIGS["llama"] | own)
    np.testing.assert_allclose(frequencies(config, length), radians, rtol=1e-6)
    cos, sin = rotation(np.array([3]), config, length)
    angles = 3 * np.array(radians)
    np.testing.assert_allclose(cos[0, 0, 0], attention * np.cos(angles), rtol=1e-5)
    np.testing.assert_allclose(sin[0, 0, 1], attention * np.sin(angles), rtol=1e-4)


def test_each_request_of_a_step_has_the_dynamic_angles_of_its_own_length():
    own = {"max_position_embeddings": 100, "rope_scaling": DYNAMIC}
    config = Config.from_dict(CONFIGS["llama"] | own)
    result = rotations([(148, 150), (60, 61)], config)
    alone = rotation(np.arange(148, 150), config, 150), rotation(np.array([60]), config, 61)
    for n in range(2):
        np.testing.assert_array_equal(result[n], np.concatenate([part[n] for part in alone]))


def test_rotation_turns_the_first_plane_by_one_radian_a_position():
    x = np.zeros((1, 1, 8), np.float32)
    x[0, 0, 0] = 1
    result = llama.rotate(x, *rotation(np.array([2]), CONFIG))[0, 0]
    np.testing.assert_allclose(result[[0, 4]], [np.cos(2), np.sin(2)], rtol=1e-6)


def test_linear_scaling_slows_every_plane():
    plain = frequencies(CONFIG)
    slow = frequencies(replace(CONFIG, rope=Rope(10000.0, "linear", 4.0)))
    np.testing.assert_allclose(slow * 4, plain)


def test_llama3_scaling_slows_only_slow_planes():
    rope = Rope(10000.0, "llama3", 8.0, 1.0, 4.0, 128)
    plain, result = frequencies(CONFIG), frequencies(replace(CONFIG, rope=rope))
    np.testing.assert_allclose(plain, [1, 0.1, 0.01, 0.001])
    turns = 128 * 0.1 / (2 * np.pi)  # between 1 and 4: partly
    part = (turns - 1) / 3
    expected = [1, 0.1 * (part + (1 - part) / 8), 0.01 / 8, 0.001 / 8]
    np.testing.assert_allclose(result, expected)


@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize(("position", "oldest"), [(0, 0), (5, 0), (5, 3)])
def test_the_mask_hides_what_is_later_or_out_of_the_window(window, position, oldest):
    result = llama.mask(position, position + 4, oldest, window)
    assert result.dtype == np.float32
    for row, query in enumerate(range(position, position + 4)):
        for column, key in enumerate(range(oldest, position + 4)):
            seen = key <= query and (window is None or key > query - window)
            assert result[row, column] == (0 if seen else -np.inf)


def part(length, layers=1):
    """The first rows of a request."""
    keys = np.empty((layers, 2, 8, length), np.float32)
    return llama.Part(length, 0, keys, np.empty((layers, 2, length, 8), np.float32))


def attention_weights():
    sizes = {"q": 32, "k": 16, "v": 16, "o": 32}
    return {f"self_attn.{name}_proj.weight": normal(size, 32) for name, size in sizes.items()}


def test_query_and_key_norms_make_the_scores_independent_of_scale():
    w = attention_weights()
    norms = {"self_attn.q_norm.weight": normal(8), "self_attn.k_norm.weight": normal(8)}
    config, x = replace(CONFIG, qk_norm=True), normal(6, 32)
    cos, sin = rotation(np.arange(6), CONFIG)

    def attended(scale):
        names = ("self_attn.q_proj.weight", "self_attn.k_proj.weight")
        weights = w | norms | {name: w[name] * scale for name in names}
        return llama.attention(x, [part(6)], 0, cos, sin, None, weights, config, llama.REFERENCE)

    np.testing.assert_allclose(attended(100), attended(1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("window", [None, 3])
def test_attention_is_that_of_each_head_by_itself(window):
    w, x = attention_weights(), normal(6, 32)
    cos, sin = rotation(np.arange(6), CONFIG)
    result = llama.attention(x, [part(6)], 0, cos, sin, window, w, CONFIG, llama.REFERENCE)

    def linear(name):
        return llama.linear(x, w[f"{name}.weight"], None)

    q = llama.rotate(linear("self_attn.q_proj").reshape(6, 4, 8), cos, sin)
    k = llama.rotate(linear("self_attn.k_proj").reshape(6, 2, 8), cos, sin)
    v = linear("self_attn.v_proj").reshape(6, 2, 8)
    mixed = np.zeros((6, 4, 8))
    for head in range(4):
        for n in range(6):
            first = 0 if window is None else max(0, n + 1 - window)
            scores = [q[n, head] @ k[m, head // 2] / 8**0.5 for m in range(first, n + 1)]
            weights = np.exp(scores) / np.exp(scores).sum()
            mixed[n, head] = weights @ v[first : n + 1, head // 2]
    expected = mixed.reshape(6, 32) @ w["self_attn.o_proj.weight"].T
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "forgets"), [("llama", False), ("mistral", True)])
def test_a_sliding_window_forgets_what_no_layer_can_reach(tmp_path, name, forgets):
    write_checkpoint(tmp_path, CONFIGS[name])
    config = Config.from_folder(tmp_path)
    model = load_model(tmp_path, config, 0, LAYERS - 1)
    ids = tokens(60).copy()[0]

    def logits():
        return llama.forward(ids, [part(60, LAYERS)], model)

    before = logits()
    ids[0] = (ids[0] + 1) % 61  # 4 layers of window 9 reach back 32 positions
    assert np.array_equal(logits(), before) is forgets


@pytest.mark.parametrize("size", [1, 16, 33])
def test_hidden_states_of_another_size_are_refused(tmp_path, size):
    """One number a row would be broadcast to a whole one, and the answer be wrong, silently."""
    write_checkpoint(tmp_path, CONFIGS["llama"])
    model = load_model(tmp_path, Config.from_folder(tmp_path), 1, LAYERS - 1)
    part = Cache(model.config, len(model.layers))
    part.make_room(3)
    with pytest.raises(ValueError, match=f"hidden states of size {size} came, .* take 32"):
        llama.forward(normal(3, size), [part.part(3)], model)
