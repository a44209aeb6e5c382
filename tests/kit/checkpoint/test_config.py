"""config.json as transformers 4 and 5 write it, and as it can be wrong."""

import tracemalloc
from math import log
from pathlib import Path

import pytest
from checkpoints import CONFIGS

from exo_kit.kit.llama.config import ARCHITECTURES, Config
from exo_kit.kit.llama.rope import Rope
from exo_kit.kit.repository.facts import RepositoryError

LLAMA = CONFIGS["llama"]
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100}
MSCALE = {"mscale": 0.7, "mscale_all_dim": 1.3}


def read(content=LLAMA, **changes):
    made = content | changes
    return Config.from_dict({key: value for key, value in made.items() if value is not ...})


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


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architectures": ["GemmaForCausalLM"]}, "'GemmaForCausalLM' is none of Llama"),
        ({"architectures": ...}, "None is none of Llama"),
        ({"architectures": "LlamaForCausalLM"}, "None is none of Llama"),
        ({"architectures": [["x"]]}, "is none of Llama"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized \\('gptq'\\)"),
        ({"quantization_config": 4}, "quantized \\(4\\)"),
        ({"hidden_act": "gelu"}, "the activation 'gelu'"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 4}}, "type 'longrope' is none of"),
        ({"rope_scaling": {"type": "dynamic"}}, "factor is missing"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2}, "head_dim": 2}, "head_dim is 2; dyn"),
        ({"rope_scaling": {"type": "yarn"}}, "factor is missing"),
        ({"rope_scaling": YARN, "rope_theta": 1}, "rope_theta is 1.0; yarn needs one above 1"),
        ({"rope_scaling": YARN | {"truncate": 1}}, "truncate is 1; it should be true or false"),
        ({"rope_scaling": YARN | {"mscale": 1, "mscale_all_dim": "x"}}, "mscale_all_dim is 'x'"),
        ({"rope_scaling": YARN | {"attention_factor": -1}}, "attention_factor is -1"),
        ({"rope_scaling": YARN | {"beta_fast": True}}, "beta_fast is True"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "rope type"),
        ({"rope_scaling": [4]}, "they should be an object"),
        ({"rope_scaling": {"type": "linear"}}, "factor is missing"),
        ({"rope_scaling": LLAMA3 | {"low_freq_factor": 4}}, "low_freq_factor 4.0 is not below"),
        ({"rope_theta": -1}, "rope_theta is -1"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"num_hidden_layers": None}, "num_hidden_layers is missing"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"vocab_size": "61"}, "vocab_size is '61'"),
        ({"intermediate_size": True}, "intermediate_size is True"),
        ({"max_position_embeddings": 1.5}, "max_position_embeddings is 1.5"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps is inf"),
        ({"num_key_value_heads": 3}, "4 attention heads can't share 3"),
        ({"head_dim": 7}, "head_dim is 7"),
        ({"hidden_size": 3}, "head_dim is 0"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps is 10000"),
        ({"rope_theta": 10**400}, "rope_theta is 10000"),
    ],
)
def test_what_does_not_run_is_refused_by_name(changes, says):
    with pytest.raises(RepositoryError, match=says):
        read(**changes)


@pytest.mark.parametrize(
    "key",
    [
        "num_hidden_layers",
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "vocab_size",
    ],
)
@pytest.mark.parametrize("size", [2 * 10**7, 10**9, 10**40])
def test_a_size_that_no_model_has_costs_no_memory(key, size):
    def taken(**changes):
        tracemalloc.start()
        with pytest.raises(RepositoryError, match=f"^{key} is {size}; no model has more"):
            read(CONFIGS["mistral"], **changes)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert taken(**{key: size}) < 10**6


@pytest.mark.parametrize("kinds", [["full_attention"], ["chunked_attention"] * 4, "full", [[]] * 4])
def test_unknown_kinds_of_layers_are_refused(kinds):
    window = {"sliding_window": 9, "use_sliding_window": True, "layer_types": kinds}
    with pytest.raises(RepositoryError, match="layer_types is"):
        read(CONFIGS["qwen3"], **window)


def test_max_window_layers_has_to_be_a_number():
    window = {"sliding_window": 9, "use_sliding_window": True, "max_window_layers": "3"}
    with pytest.raises(RepositoryError, match="max_window_layers is '3'"):
        read(CONFIGS["qwen3"], **window)


def test_every_architecture_has_a_model_in_the_tests():
    assert {config["architectures"][0] for config in CONFIGS.values()} == set(ARCHITECTURES)


@pytest.mark.parametrize(
    ("text", "says"),
    [(b"{", "is not JSON"), (b"[]", "no object"), (b"\xff\xfe", "not JSON"), (b"{}", "None")],
)
def test_a_broken_file_is_named(tmp_path, text, says):
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(RepositoryError, match=says) as caught:
        Config.from_folder(tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value)


def test_a_file_that_no_model_has_is_not_read(tmp_path, monkeypatch):
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(2 * 10**9)  # a hole
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(RepositoryError, match=r"config\.json has 2000000000 bytes; no model's"):
        Config.from_folder(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        Config.from_folder(tmp_path)


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


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"model_type": "phi3", "architectures": ["LlamaForCausalLM"]}, "model_type is 'phi3'"),
        ({"model_type": ["llama"]}, r"model_type is \['llama'\]"),
        ({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}, "none of"),
        (
            {"architectures": ["Mistral3ForConditionalGeneration"], "text_config": {}},
            "Mistral3ForConditionalGeneration.* nested in text_config",
        ),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "is quantized"),
    ],
)
def test_what_contradicts_itself_or_is_another_model_is_refused(named, says):
    with pytest.raises(RepositoryError, match=says):
        read(**named)
