"""What a folder's files say together, and where the files come from."""

import json

import pytest
import tokenizers
from repository_folder import write

from exo_kit.kit.repository.facts import Facts, RepositoryError
from exo_kit.kit.text.tokenizer import Tokenizer


def added(content, special=True):
    return {"content": content, "special": special, "normalized": not special}


@pytest.mark.parametrize(
    "settings",
    [
        {"added_tokens_decoder": {"6": added("<end>"), "5": added("<start>")}},
        {"bos_token": "<start>", "additional_special_tokens": ["<end>"]},
        {"extra_special_tokens": ["<start>", "<end>"]},
        {"extra_special_tokens": {"x_token": "<start>", "y_token": "<end>"}},
        {"bos_token": added("<start>"), "pad_token": added("<end>")},
    ],
    ids=["decoder", "additional", "extra", "named extra", "objects"],
)
def test_tokens_of_other_files_are_one_id_each_in_transformers_order(tmp_path, settings):
    config = {"eos_token": "</s>"} | settings
    tokenizer = Tokenizer.from_folder(write(tmp_path, tokenizer_config=config))
    assert tokenizer.encode("<start> a <end>") == [5, 0, 6]
    assert tokenizer.decode([5, 6]) == "<start> <end>"


def test_added_tokens_json_counts_where_the_configuration_has_no_table_of_them(tmp_path):
    folder = write(
        tmp_path,
        tokenizer_config={"eos_token": "<end>"},
        added_tokens={"<end>": 6, "<word>": 5},
    )
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.encode("<word> <end>") == [5, 6]
    assert tokenizer.eos_token_id == 6
    (folder / "tokenizer_config.json").write_text('{"added_tokens_decoder": {}, "eos_token": "b"}')
    assert len(Tokenizer.from_folder(folder).encode("<word>")) > 1


def test_special_tokens_map_wins_but_where_the_table_of_tokens_is(tmp_path):
    both = {"tokenizer_config": {"eos_token": "a"}, "special_tokens_map": {"eos_token": "</s>"}}
    assert Tokenizer.from_folder(write(tmp_path / "old", **both)).eos_token_id == 3
    both["tokenizer_config"]["added_tokens_decoder"] = {"3": added("</s>")}
    assert Tokenizer.from_folder(write(tmp_path / "new", **both)).eos_token_id == 0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("generation_config", {"eos_token_id": [3, 1]}),
        ("config", {"eos_token_id": 1}),
        ("config", {"text_config": {"eos_token_id": 1}}),
        ("genai_config", {"model": {"eos_token_id": [1]}}),
        ("tokenizer_config", {"eos_token": "b"}),
        ("special_tokens_map", {"eos_token": {"content": "b"}}),
    ],
)
def test_every_file_that_can_name_an_end_is_read(tmp_path, name, content):
    assert 1 in Tokenizer.from_folder(write(tmp_path, **{name: content})).eos_token_ids


def test_what_is_no_id_in_any_file_is_no_end(tmp_path):
    odd = {"eos_token_id": [True, -1, "1", 1.0, 1 << 40, [1]]}
    named = {
        "generation_config": odd,
        "genai_config": {"model": odd},
        "config": {"eos_token_id": 3},
    }
    assert Tokenizer.from_folder(write(tmp_path, **named)).eos_token_ids == {3}


def starts(pieces):
    return tokenizers.processors.TemplateProcessing(
        single=f"{pieces} $A".strip(), pair="$A $B", special_tokens=[("<s>", 2), ("b", 1)]
    )


@pytest.mark.parametrize(
    ("post", "config", "ids"),
    [
        (starts("<s>"), {}, [2, 0]),
        (starts("<s> b"), {}, [2, 1, 0]),
        (tokenizers.processors.Sequence([starts("<s>")]), {}, [2, 0]),
        (None, {"add_bos_token": True, "bos_token": "<s>"}, [2, 0]),
        (None, {"add_bos_token": True}, [0]),
        (None, {"bos_token": "<s>"}, [0]),
        (starts(""), {"add_bos_token": True, "bos_token": "<s>"}, [0]),
    ],
)
def test_a_text_that_no_template_made_begins_as_the_model_wants_it(tmp_path, post, config, ids):
    folder = write(tmp_path, post, tokenizer_config=config | {"eos_token": "</s>"})
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.encode_prompt("a") == ids
    assert tokenizer.encode("a") == [0]
    assert tokenizer.encode_prompt("<s> a")[:2] != [2, 2]


def test_a_text_of_a_template_has_its_beginning_already(tmp_path):
    config = {"eos_token": "</s>", "chat_template": "{{ bos_token }}…"}
    tokenizer = Tokenizer.from_folder(write(tmp_path, starts("<s>"), tokenizer_config=config))
    assert tokenizer.encode_prompt("a") == [0]
    assert tokenizer.encode_prompt("a", plain=True) == [2, 0]


@pytest.mark.parametrize(
    ("config", "genai", "context"),
    [
        ({"max_position_embeddings": 4096}, {}, 4096),
        (
            {"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}},
            {},
            16384,
        ),
        (
            {
                "max_position_embeddings": 4096,
                "rope_parameters": {"rope_type": "linear", "factor": 2},
            },
            {},
            8192,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
            },
            {},
            131072,
        ),
        (
            {
                "max_position_embeddings": 32768,
                "rope_scaling": {
                    "type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 32768,
                },
            },
            {},
            131072,
        ),
        (
            {
                "max_position_embeddings": 65536,
                "original_max_position_embeddings": 4096,
                "rope_scaling": {
                    "type": "yarn",
                    "factor": 16.0,
                    "original_max_position_embeddings": 8192,
                },
            },
            {},
            65536,
        ),
        (
            {"max_position_embeddings": 8192, "rope_scaling": {"type": "yarn", "factor": None}},
            {},
            8192,
        ),
        (
            {
                "max_position_embeddings": 8192,
                "rope_scaling": {
                    "type": "dynamic",
                    "factor": 4.0,
                    "original_max_position_embeddings": 2048,
                },
            },
            {},
            32768,
        ),
        (
            {"max_position_embeddings": 64, "rope_scaling": {"type": "linear", "factor": 1e300}},
            {},
            64,
        ),
        (
            {"max_position_embeddings": 64, "rope_scaling": {"type": "linear", "factor": "4"}},
            {},
            64,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_scaling": {
                    "rope_type": "linear",
                    "factor": 8.0,
                    "original_max_position_embeddings": 16384,
                },
            },
            {},
            131072,
        ),
        ({"text_config": {"max_position_embeddings": 64}}, {}, 64),
        ({"max_position_embeddings": 64}, {"context_length": 32}, 32),
        ({"max_position_embeddings": "64"}, {"context_length": True}, None),
    ],
)
def test_the_context_of_a_model(tmp_path, config, genai, context):
    write(tmp_path, config=config, genai_config={"model": genai})
    assert Facts(tmp_path).context == context


@pytest.mark.parametrize(
    ("named", "layers"),
    [
        ({"config": {"num_hidden_layers": 3}}, 3),
        ({"config": {"model_type": "mistral"}}, 32),
        ({"config": {"text_config": {"num_hidden_layers": 5}}}, 5),
        ({"genai_config": {"model": {"decoder": {"num_hidden_layers": 7}}}}, 7),
    ],
)
def test_the_layers_of_a_model(tmp_path, named, layers):
    assert Facts(write(tmp_path, **named)).layers == layers


@pytest.mark.parametrize("count", [0, -1, True, "3", 10**40, None])
def test_a_count_of_layers_that_is_none_is_a_sentence(tmp_path, count):
    write(tmp_path, config={"num_hidden_layers": count})
    with pytest.raises(RepositoryError, match=r"no config\.json with num_hidden_layers"):
        Facts(tmp_path).layers  # noqa: B018 - a property


@pytest.mark.parametrize("value", [0.5, 7, True, None, [1, None, ""]])
def test_extra_tokens_of_another_type_are_none(tmp_path, value):
    """A fuzzer's: a number there was a TypeError."""
    config = {"extra_special_tokens": value, "added_tokens_decoder": {}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert Facts(tmp_path).added_tokens == []


def test_ids_of_another_type_in_added_tokens_are_none(tmp_path):
    """Another one of a fuzzer's."""
    (tmp_path / "added_tokens.json").write_text('{"a": {}, "b": [1], "c": null, "d": 3}')
    assert [token["content"] for token in Facts(tmp_path).added_tokens] == ["d"]
