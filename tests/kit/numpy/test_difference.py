"""A failing parity test names the first layer and the first operation that differ."""

from dataclasses import replace

import numpy as np
import pytest
from checkpoints import CONFIGS, tokens

from exo_kit.backend import Backend
from exo_kit.kit.llama import llama, operations
from exo_kit.kit.llama.difference import first_difference
from exo_kit.kit.llama.random_checkpoint import write_checkpoint
from exo_kit.kit.llama.table import Own

STEPS = (tokens(20), tokens(1, 1), tokens(1, 2))


@pytest.fixture
def where(tmp_path, monkeypatch):
    """Function `where(table, backend)`: the difference of a backend with these operations."""
    write_checkpoint(tmp_path, CONFIGS["mistral"])

    def run(table, backend=Backend):
        own = Own(table)
        monkeypatch.setattr(operations, "own", lambda: own)
        return first_difference(backend, tmp_path, STEPS, 1e-4, own.operations)

    return run


def test_an_operation_that_is_wrong_when_decoding_is_named_with_its_step(where):
    def attend(q, *others):
        y = llama.attend(q, *others)
        return y * 1.5 if len(q) == 1 else y

    place = where({"attend": attend, "rotate": lambda *arguments: llama.rotate(*arguments)})
    assert place.startswith("layer 0 is the first that differs: in step 2, of 1 positions, by ")
    assert "; there, attend is the first operation, by 5.0e-01" in place


def test_the_inner_operation_is_named_and_not_the_one_around_it(where):
    def mlp(x, w, op):
        return llama.mlp(x, w, op)

    def linear(x, weight, bias):
        return llama.linear(x, weight, bias) + (len(weight) == 56)  # gate and up

    place = where({"mlp": mlp, "linear": linear})
    assert "; there, linear is the first operation" in place


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_the_layer_is_named_of_a_backend_that_has_no_table(where, layer):
    class Off(Backend):
        def load(self, layers, folder, tokenizer):
            super().load(layers, folder, tokenizer)
            for n in set(range(layers.first, layers.last + 1)) & {layer}:
                weights = dict(self._model.layers[n - layers.first])
                weights["mlp.up_proj.weight"] = weights["mlp.up_proj.weight"] * np.float32(1.1)
                every = list(self._model.layers)
                every[n - layers.first] = weights
                self._model = replace(self._model, layers=tuple(every))

    place = where({}, Off)
    last = ", or the logits behind it," if layer == 3 else ""
    assert place.startswith(f"layer {layer}{last} is the first that differs: in step 1, of 20 ")
    assert "operation" not in place


def test_logits_alone_are_named_by_their_operation(where):
    place = where({"logits": lambda *arguments: llama.logits(*arguments) * 2})
    assert "layer 3, or the logits behind it, is the first" in place
    assert place.endswith("; there, logits is the first operation, by 1.0e+00")


def test_nan_is_a_difference_and_what_is_right_is_none(where):
    assert "by nan of" in where({"embed": lambda ids, table: table[ids] * np.float32(np.nan)})
    assert where({}).startswith("each layer by itself is right")
