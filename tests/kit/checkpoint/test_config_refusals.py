"""A config.json that does not run, contradicts itself or is broken: each is refused by name."""

import tracemalloc
from pathlib import Path

import pytest
from checkpoints import CONFIGS
from configs import LLAMA3, YARN, read

from exo_kit.kit.llama.config import Config
from exo_kit.kit.repository.facts import RepositoryError


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
