"""What the tensors of a checkpoint may be called: heads of their own, tied ones, shorter names."""

import json

import numpy as np
import pytest
from checkpoints import CONFIGS
from tensors import all_tensors, load, rewrite, write_config

from exo_kit.kit.llama.random_checkpoint import write_checkpoint
from exo_kit.kit.llama.weights import INDEX, SINGLE
from exo_kit.kit.repository.facts import RepositoryError


def renamed(path, rename):
    """Give the tensors of a file other names; None drops one."""

    def names(header):
        for name in [name for name in header if name != "__metadata__"]:
            entry = header.pop(name)
            if (other := rename(name)) is not None:
                header[other] = entry

    rewrite(path, names)


EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def test_a_head_of_its_own_counts_whatever_the_configuration_says_of_tied_ones(tmp_path):
    write_checkpoint(tmp_path, CONFIGS["llama"])
    untied = load(tmp_path)
    write_config(tmp_path, tie_word_embeddings=True)
    np.testing.assert_array_equal(load(tmp_path).head, untied.head)
    assert not load(tmp_path).config.tied


@pytest.mark.parametrize("files", [1, 2])
def test_tied_weights_have_either_name(tmp_path, files):
    write_checkpoint(tmp_path, CONFIGS["qwen2"], files=files)
    expected = load(tmp_path).embedding.copy()  # a view of the file
    for path in tmp_path.glob("*.safetensors"):
        renamed(path, lambda name: HEAD if name == EMBEDDING else name)
    if files == 2:
        index = json.loads((tmp_path / INDEX).read_text())
        index["weight_map"][HEAD] = index["weight_map"].pop(EMBEDDING)
        (tmp_path / INDEX).write_text(json.dumps(index))
    np.testing.assert_array_equal(load(tmp_path).embedding, expected)
    np.testing.assert_array_equal(load(tmp_path).head, expected)


@pytest.mark.parametrize("gone", [EMBEDDING, HEAD])
def test_a_model_that_is_not_tied_needs_both(tmp_path, gone):
    write_checkpoint(tmp_path, CONFIGS["llama"])
    renamed(tmp_path / SINGLE, lambda name: None if name == gone else name)
    with pytest.raises(RepositoryError, match=f"no tensor {gone}"):
        load(tmp_path)


def test_a_model_that_was_saved_without_its_head_has_shorter_names(tmp_path):
    write_checkpoint(tmp_path, CONFIGS["qwen2"])
    expected = {name: tensor.copy() for name, tensor in all_tensors(load(tmp_path)).items()}
    renamed(tmp_path / SINGLE, lambda name: name.removeprefix("model."))
    tensors = all_tensors(load(tmp_path))
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, expected[name])
