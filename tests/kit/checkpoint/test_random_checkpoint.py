"""What `generate --random-weights` answers with."""

import json

import numpy as np
import pytest
from checkpoints import CONFIGS, greedy

from exo_kit.kit.command.progress import Progress
from exo_kit.kit.llama.config import Config
from exo_kit.kit.llama.random_checkpoint import DEFAULT, END, write_checkpoint
from exo_kit.kit.llama.weights import SINGLE, load_model
from exo_kit.kit.text.tokenizer import Tokenizer

TEXT = "<|im_start|>user\nHällo 你好 \U0001f600\x00\x1b\xff<|im_end|>\n"


def test_the_same_seed_gives_the_same_files(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_checkpoint(tmp_path / name, CONFIGS["qwen3"], seed=seed)
    a, b, c = ((tmp_path / name / SINGLE).read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize(("dtype", "error"), [("F16", 2**-11), ("BF16", 2**-8)])
def test_half_precision_rounds_the_numbers_of_float32(tmp_path, dtype, error):
    write_checkpoint(tmp_path / "F32", CONFIGS["llama"])
    write_checkpoint(tmp_path / "half", CONFIGS["llama"], dtype=dtype)
    exact, rounded = (
        load_model(folder, Config.from_folder(folder), 0, 3).layers[1]["mlp.up_proj.weight"]
        for folder in (tmp_path / "F32", tmp_path / "half")
    )
    assert not np.array_equal(rounded, exact)
    np.testing.assert_allclose(rounded, exact, rtol=error, atol=1e-6)


def test_each_byte_is_a_token_and_one_ends_the_answer(tmp_path):
    write_checkpoint(tmp_path)
    tokenizer = Tokenizer.from_folder(tmp_path)
    ids = tokenizer.encode(TEXT)
    assert tokenizer.decode(ids) == TEXT
    assert ids[:-2] == list(TEXT.encode())[: len(ids) - 2]
    assert ids[-2] == END == tokenizer.eos_token_id
    assert tokenizer.eos_token_ids == {END}
    assert "add_generation_prompt" in tokenizer.chat_template


def test_the_config_is_the_one_given(tmp_path):
    write_checkpoint(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == DEFAULT
    assert Config.from_folder(tmp_path).vocab_size == END + 1


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_logits_are_well_behaved(tmp_path, dtype):
    write_checkpoint(tmp_path, dtype=dtype)
    seen = []
    for prompt in (b"Hello", b"Hi", b"What is exo?", b"\n"):
        greedy(tmp_path, list(prompt), 20, seen)
    assert len(seen) > 20
    assert np.isfinite(seen).all()
    assert 1 < np.std(seen) < 10
    top = np.sort(seen, axis=-1)
    assert np.quantile(top[:, -1] - top[:, -2], 0.05) > 0.01


def test_an_answer_holds_nothing_that_a_terminal_could_take_for_a_command(tmp_path):
    write_checkpoint(tmp_path, seed=3)
    for prompt in (b"Hello", b"a", b"\n"):
        assert all(32 <= n < 127 or n == END for n in greedy(tmp_path, list(prompt), 60))


def test_noise_is_announced(run_cli, monkeypatch):
    ended = []
    monkeypatch.setattr(Progress, "end", lambda self, text: ended.append(text))
    assert run_cli("generate", "hi", "--random-weights", "--max-tokens", "2").code == 0
    assert ended[0] == "What comes is noise: the weights are random."
