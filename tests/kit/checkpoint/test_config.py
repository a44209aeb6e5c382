"""config.json as transformers 4 and 5 write it, and as it can be wrong."""

from math import log

import pytest
from checkpoints import CONFIGS
from configs import LLAMA3, MSCALE, YARN, read

from exo_kit.kit.llama.config import ARCHITECTURES, Config
from exo_kit.kit.llama.rope import Rope
from exo_kit.kit.repository.facts import RepositoryError


def test_the_numbers_are_those_of_the_file():
    config = read()
    assert (config.layers, config.hidden_size, config.intermediate_size) == (4, 32, 56)
    assert (config.heads, config.kv_heads, config.head_dim) == (4, 2, 8)
    assert (config.vocab_size, config.context_length, config.norm_eps) == (61, 400, 1e-6)
    assert config.rope == Rope(10000.0)
    assert config.windows == (None,) * 4
    flags = (config.qkv_bias, config.output_bias, config.mlp_bias, config.qk_norm, config.tied)
    assert flags == (False,) * 5


def test_what_transformers_leaves_out_or_sets_to_null():
    assert read(num_key_value_heads=...).kv_heads == 4
    assert read(num_key_value_heads=None, head_dim=None, rope_scaling=None).head_dim == 8
    assert read(head_dim=16).head_dim == 16
    assert read(CONFIGS["qwen3"], head_dim=...).head_dim == 128


@pytest.mark.parametrize(
    ("spelling", "rope"),
    [
        ({"rope_scaling": YARN}, Rope(1e4, "yarn", 4.0, 1.0, 32.0, 100, 0.1 * log(4) + 1)),
        (
            {"rope_scaling": YARN, "original_max_position_embeddings": 50},
            Rope(1e4, "yarn", 4.0, 1.0, 32.0, 50, 0.1 * log(4) + 1),
        ),
        (
            {"rope_scaling": YARN | {"factor": None, "beta_slow": 0, "beta_fast": 8}},
            Rope(1e4, "yarn", 4.0, 1.0, 8.0, 100, 0.1 * log(4) + 1),
        ),
        (
            {"rope_parameters": YARN | MSCALE | {"rope_theta": 5e5, "truncate": False}},
            Rope(
                5e5, "yarn", 4.0, 1.0, 32.0, 100, (0.07 * log(4) + 1) / (0.13 * log(4) + 1), False
            ),
        ),
        (
            {"rope_scaling": YARN | MSCALE | {"mscale_all_dim": 0.0, "attention_factor": 1.5}},
            Rope(1e4, "yarn", 4.0, 1.0, 32.0, 100, 1.5),
        ),
        ({"rope_scaling": YARN | {"factor": 0.5}}, Rope(1e4, "yarn", 0.5, 1.0, 32.0, 100)),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 4}},
            Rope(1e4, "dynamic", 4.0, original_context=400),
        ),
        ({"rope_theta": 5e5}, Rope(5e5)),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, Rope(5e5)),
        ({"rope_scaling": {"type": "linear", "factor": 4}}, Rope(1e4, "linear", 4.0)),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}},
            Rope(5e5, "linear", 4.0),
        ),
        ({"rope_theta": 5e5, "rope_scaling": LLAMA3}, Rope(5e5, "llama3", 32.0, 1.0, 4.0, 8192)),
        (
            {"rope_parameters": LLAMA3 | {"rope_theta": 5e5}},
            Rope(5e5, "llama3", 32.0, 1.0, 4.0, 8192),
        ),
    ],
)
def test_rope_in_both_spellings(spelling, rope):
    assert read(**spelling).rope == rope


@pytest.mark.parametrize(
    ("name", "changes", "biases"),
    [
        ("llama", {}, (False, False, False)),
        ("llama", {"attention_bias": True}, (True, True, False)),
        ("llama", {"mlp_bias": True}, (False, False, True)),
        ("mistral", {}, (False, False, False)),
        ("qwen2", {}, (True, False, False)),
        ("qwen3", {}, (False, False, False)),
        ("qwen3", {"attention_bias": True}, (True, True, False)),
    ],
)
def test_biases_by_architecture(name, changes, biases):
    config = read(CONFIGS[name], **changes)
    assert (config.qkv_bias, config.output_bias, config.mlp_bias) == biases
    assert config.qk_norm is (name == "qwen3")


@pytest.mark.parametrize(
    ("name", "changes", "windows"),
    [
        (
            "llama",
            {"sliding_window": 9, "use_sliding_window": True, "max_window_layers": 0},
            (None, None, None, None),
        ),
        ("mistral", {}, (9, 9, 9, 9)),
        ("mistral", {"sliding_window": None}, (None, None, None, None)),
        ("qwen2", {"sliding_window": 9, "max_window_layers": 0}, (None, None, None, None)),
        (
            "qwen2",
            {"sliding_window": 9, "use_sliding_window": False, "max_window_layers": 0},
            (None, None, None, None),
        ),
        ("qwen3", {}, (None, None, 9, 9)),
        (
            "qwen2",
            {"sliding_window": 9, "use_sliding_window": True, "max_window_layers": 3},
            (None, None, None, 9),
        ),
        (
            "qwen3",
            {
                "sliding_window": 9,
                "use_sliding_window": True,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
            },
            (9, None, 9, None),
        ),
    ],
)
def test_windows_by_layer(name, changes, windows):
    assert read(CONFIGS[name], **changes).windows == windows


def test_every_architecture_has_a_model_in_the_tests():
    assert {config["architectures"][0] for config in CONFIGS.values()} == set(ARCHITECTURES)


@pytest.mark.parametrize(
    ("rope_scaling", "rope"),
    [
        ({"type": "linear", "factor": 4.0}, Rope(1e4, "linear", 4.0)),
        ({"type": "linear", "factor": 4.0, "rope_theta": 5e5}, Rope(5e5, "linear", 4.0)),
        ({}, Rope(7e5)),
        (None, Rope(7e5)),
    ],
)
def test_rope_scaling_beside_rope_parameters_wins_whole(rope_scaling, rope):
    parameters = {"rope_type": "default", "rope_theta": 7e5}
    assert read(rope_scaling=rope_scaling, rope_parameters=parameters).rope == rope


def test_rope_scaling_that_does_not_run_is_refused_beside_parameters_too():
    parameters = {"rope_type": "default", "rope_theta": 1e4}
    with pytest.raises(RepositoryError, match="rope type 'longrope'"):
        read(rope_scaling={"type": "longrope", "factor": 4}, rope_parameters=parameters)


def test_the_original_context_beside_the_rope_parameters_counts():
    scaling = {key: LLAMA3[key] for key in LLAMA3 if not key.startswith("original")}
    assert read(rope_scaling=scaling).rope.original_context == 400
    beside = {"original_max_position_embeddings": 64}
    assert read(rope_scaling=LLAMA3, **beside).rope.original_context == 64


@pytest.mark.parametrize(
    ("family", "usual"),
    [
        ("llama", (32000, 11008, 32, 2048, (None,) * 32)),
        ("mistral", (32000, 14336, 8, 131072, (4096,) * 32)),
        ("qwen2", (151936, 22016, 32, 32768, (None,) * 32)),
        ("qwen3", (151936, 22016, 32, 32768, (None,) * 32)),
    ],
)
def test_what_transformers_takes_where_a_file_says_nothing(family, usual):
    c = Config.from_dict({"model_type": family})
    values = (c.vocab_size, c.intermediate_size, c.kv_heads, c.context_length, c.windows)
    assert values == usual
    assert (c.hidden_size, c.heads, c.head_dim, c.norm_eps, c.tied) == (4096, 32, 128, 1e-6, False)


@pytest.mark.parametrize(
    ("named", "architecture"),
    [
        ({"model_type": "qwen3", "architectures": None}, "qwen3"),
        ({"model_type": "qwen3", "architectures": []}, "qwen3"),
        ({"model_type": "qwen3", "architectures": ["LlamaForCausalLM"]}, "qwen3"),
        ({"model_type": "llama", "architectures": ["LLaMAForCausalLM"]}, "llama"),
        ({"model_type": ..., "architectures": ["Qwen3ForCausalLM"]}, "qwen3"),
    ],
)
def test_model_type_says_what_a_model_is(named, architecture):
    assert read(head_dim=8, **named).qk_norm is (architecture == "qwen3")
