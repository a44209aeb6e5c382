"""Any text that a device gives becomes ids whose decoding is that text."""

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

MARKS = ("<|im_end|>", "<|eot_id|>", "<s>", "</s>", "<unk>", "<0x41>", "▁", "▁the", "Ġ")
ODD = ("e\u0301", "\u00e9", "\U0001f468\u200d\U0001f469", "\x00", "\ufffd", "\ud800")
TRICKY = st.sampled_from([" ", "  ", "\n\n", " the", "hello", *MARKS, *ODD])
DELTAS = st.lists(st.text(max_size=8) | TRICKY, max_size=8)


@pytest.fixture(scope="module")
def module(rkllm_plugin: Path) -> Iterator[Callable[[str], ModuleType]]:
    """Function `module(name)` that imports from the rendered plugin and its tests."""
    paths = [str(rkllm_plugin), str(rkllm_plugin / "tests")]
    sys.path[:0] = paths
    yield import_module
    for path in paths:
        sys.path.remove(path)


@pytest.fixture(scope="module", params=["byte_level_bpe", "bos_adding", "sentencepiece_style"])
def fast(
    request: pytest.FixtureRequest,
    module: Callable[[str], ModuleType],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """One tokenizer of each kind, read from its file as the engine reads it."""
    import tokenizers

    folder = tmp_path_factory.mktemp(request.param)
    getattr(module("tokenizers_for_tests"), request.param)(folder)
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def retokenizer(fast: Any, module: Callable[[str], ModuleType]) -> Any:
    return module("exo_rkllm.kit.hosts.exo_0_0.retokenizer").Retokenizer(fast)


@settings(max_examples=300, deadline=None)
@given(deltas=DELTAS)
def test_any_text_comes_back_from_any_pieces(
    fast: Any, retokenizer: Any, deltas: list[str]
) -> None:
    added = set(fast.get_added_tokens_decoder())
    spelling = retokenizer.start()
    ids: list[int] = []
    text = ""
    for delta in deltas:
        new = spelling.feed(delta)
        assert bool(new) == bool(delta), "a delta's ids must be handed out at once"
        assert not added.intersection(new)
        ids += new
        text += "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in delta)
        assert fast.decode(ids, skip_special_tokens=False) == text
