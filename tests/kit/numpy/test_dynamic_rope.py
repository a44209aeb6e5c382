"""Dynamic rope: its angles follow a request, so a prompt goes whole and serves no other."""

import numpy as np
import pytest
from checkpoints import CONFIGS, LAYERS, tokens

from exo_kit.backend import Backend
from exo_kit.kit.contract import Layers
from exo_kit.kit.llama.random_checkpoint import write_checkpoint


def loaded(folder, **config):
    write_checkpoint(folder, CONFIGS["llama"] | config)
    backend = Backend()
    backend.load(Layers("toy", 0, LAYERS - 1, LAYERS), folder, None)
    return backend


def test_a_prompt_of_a_dynamic_model_is_one_step_and_serves_no_other(tmp_path):
    scaling = {"type": "dynamic", "factor": 2.0}
    backend = loaded(tmp_path, max_position_embeddings=24, rope_scaling=scaling)
    assert (backend.block, backend.context) == (None, 48)
    backend.step("one", tokens(40))
    with pytest.raises(NotImplementedError, match="their request's length"):
        backend.reuse("two", "one", 32)


def test_others_go_in_slices(tmp_path):
    backend = loaded(tmp_path)
    assert backend.block == 64
    backend.step("one", tokens(40))
    backend.reuse("two", "one", 32)
    backend.step("one", tokens(1)), backend.step("two", tokens(8))
    assert np.isfinite(backend.step("two", tokens(1))).all()
