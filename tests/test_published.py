"""Published repositories' files against transformers (reference/make_published.py)."""

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import render_into
from reference.published import REFUSED, REPOSITORIES, TEXT
from reference.published.folder import write

DATA = np.load(Path(__file__).parent / "reference/answers/published.npz")


@pytest.fixture(scope="module", params=["numpy", "onnx"])
def plugin(
    request: pytest.FixtureRequest, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A rendered plugin's package, by its name, on the path."""
    name = f"exo-published-{request.param}"
    folder = render_into(template, tmp_path_factory.mktemp("p") / name, variant=request.param)
    sys.path.insert(0, str(folder))
    yield name.replace("-", "_")
    sys.path.remove(str(folder))


@pytest.fixture(params=REPOSITORIES)
def repository(request: pytest.FixtureRequest, plugin: str, tmp_path: Path) -> Any:
    """One repository: its folder, its tokenizer, and what transformers says of it."""
    module = import_module
    write_checkpoint = module(f"{plugin}.kit.llama.random_checkpoint").write_checkpoint
    write(REPOSITORIES[request.param], tmp_path, write_checkpoint)
    saved = {n.partition("|")[2]: DATA[n] for n in DATA if n.partition("|")[0] == request.param}
    tokenizer = module(f"{plugin}.kit.text.tokenizer").Tokenizer.from_folder(tmp_path)
    return SimpleNamespace(
        plugin=plugin,
        facts=module(f"{plugin}.kit.repository.facts").Facts(tmp_path),
        expected=REPOSITORIES[request.param],
        tokenizer=tokenizer,
        reference=saved,
        folder=tmp_path,
    )


def logits(repository: Any, ids: list[int]) -> np.ndarray:
    """The last position's, by the plugin's backend."""
    layers = import_module(f"{repository.plugin}.kit.contract").Layers
    backend = import_module(f"{repository.plugin}.backend").Backend()
    backend.load(layers("published", 0, 1, 2), repository.folder, repository.tokenizer)
    facts: np.ndarray = backend.step("request", np.array([ids], np.int64))[0, -1]
    backend.close()
    return facts


def test_a_text_has_transformers_ids_and_logits(repository: Any) -> None:
    ids = repository.tokenizer.encode_prompt(TEXT, plain=True)
    assert ids == repository.reference["text"].tolist()
    expected = repository.reference["text_logits"]
    assert np.abs(logits(repository, ids) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_chat_has_transformers_ids_and_logits(repository: Any) -> None:
    if "chat" not in repository.reference:
        assert repository.tokenizer.chat_template is None
        return
    chat = import_module(f"{repository.plugin}.kit.text.chat_template")
    messages = [{"role": "user", "content": TEXT}]
    template = chat.compiled(repository.tokenizer.chat_template)
    text = chat.render(template, messages, repository.tokenizer.special_tokens)
    ids = repository.tokenizer.encode_prompt(text)
    assert ids == repository.reference["chat"].tolist()
    expected = repository.reference["chat_logits"]
    assert np.abs(logits(repository, ids) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_an_answer_ends_where_transformers_ends_it(repository: Any) -> None:
    assert sorted(repository.tokenizer.eos_token_ids) == repository.reference["ends"].tolist()


def test_the_context_and_the_layers_are_the_repositorys(repository: Any) -> None:
    assert (repository.facts.context or 2048) == repository.expected.context
    assert repository.facts.layers == 2


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_run_is_refused_in_a_sentence(plugin: str, name: str) -> None:
    _, config, words = REFUSED[name]
    module = import_module(f"{plugin}.kit.llama.config")
    with pytest.raises(module.RepositoryError, match=re.escape(words)):
        module.Config.from_dict(config)


def test_at_least_25_were_read_in_public_and_each_says_where() -> None:
    sources = [row.source for row in REPOSITORIES.values() if row.confirmed]
    assert len(sources) >= 25
    for source in [*sources, *(row[0] for row in REFUSED.values())]:
        for part in source.split("; "):
            assert re.match(r"(hub:)?[\w.-]+/[\w.-]+@([0-9a-f]{7,}|main):?", part), part
    assert {name.partition("|")[0] for name in DATA} == set(REPOSITORIES)
