"""The NumPy variant's logits against those of transformers; reference/make.py made them."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from conftest import render_into
from reference.cases import CASES, DECODED, PROMPT

DATA = Path(__file__).parent / "reference"


@pytest.fixture(scope="module")
def plugin(template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A rendered plugin's package, by its name, on the path."""
    folder = render_into(
        template, tmp_path_factory.mktemp("plugin") / "exo-reference", variant="numpy"
    )
    sys.path.insert(0, str(folder))
    yield "exo_reference"
    sys.path.remove(str(folder))


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def loaded(name: str, plugin: str, tmp_path: Path):
    """A backend with the case's checkpoint."""
    layers = CASES[name].config["num_hidden_layers"]
    write_checkpoint = import_module(f"{plugin}.kit.llama.random_checkpoint").write_checkpoint
    write_checkpoint(tmp_path, CASES[name].config, **CASES[name].files)
    made = import_module(f"{plugin}.backend").Backend()
    contract = import_module(f"{plugin}.kit.contract")
    made.load(contract.Layers("reference", 0, layers - 1, layers), tmp_path, None)
    yield made
    made.close()


def relative_error(outputs: np.ndarray, expected: np.ndarray) -> float:
    """The worst row's largest difference over its largest logit."""
    return float((np.abs(outputs - expected).max(-1) / np.abs(expected).max(-1)).max())


def run(backend, steps: list[np.ndarray]) -> np.ndarray:
    """The last position's logits of each step, [steps, V]."""
    return np.stack([backend.step("request", step[None])[0, 0] for step in steps])


def test_a_prompt_and_decoded_tokens_have_the_reference_logits(name: str, loaded) -> None:
    data = np.load(DATA / f"{name}.npz")
    ids, expected = data["ids"], data["logits"]
    assert len(ids) == PROMPT + DECODED
    outputs = run(loaded, [ids[:PROMPT], *np.split(ids[PROMPT:], DECODED)])
    assert relative_error(outputs, expected[PROMPT - 1 :]) <= 1e-4


def test_every_position_has_the_reference_logits_token_by_token(name: str, loaded) -> None:
    data = np.load(DATA / f"{name}.npz")
    outputs = run(loaded, np.split(data["ids"], PROMPT + DECODED))
    expected = data["single"] if CASES[name].apart else data["logits"]
    assert relative_error(outputs, expected) <= 1e-4


@pytest.mark.skipif("TRANSFORMERS_PYTHON" not in os.environ, reason="no TRANSFORMERS_PYTHON")
def test_the_data_of_scaled_ropes_is_what_transformers_gives(
    template: Path, tmp_path: Path
) -> None:
    plugin = render_into(template, tmp_path / "exo-reference", variant="numpy")
    names = [name for name in CASES if "yarn" in name or "dynamic" in name]
    make = [os.environ["TRANSFORMERS_PYTHON"], DATA / "make.py", "--to", tmp_path, plugin, *names]
    subprocess.run(make, check=True, timeout=300)
    for name in names:
        with np.load(DATA / f"{name}.npz") as tensors, np.load(tmp_path / f"{name}.npz") as made:
            assert set(tensors) == set(made)
            assert all(
                relative_error(made[key], tensors[key]) <= 1e-5 for key in set(tensors) - {"ids"}
            )


def test_every_case_has_its_data() -> None:
    assert {path.stem for path in DATA.glob("*.npz")} == set(CASES)
