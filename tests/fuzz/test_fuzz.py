"""The fuzzers' targets, a little: `python tests/fuzz/run.py` does it for long."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("target", "variant"),
    [
        ("checkpoint", "numpy"),
        ("repository", "numpy"),
        ("tools", "numpy"),
        ("events", "numpy"),
        ("prompt", "rkllm"),
        ("stream", "rkllm"),
        ("stream", "openai"),
    ],
)
def test_nothing_but_its_own_errors_leaves_a_reader(
    plugin_of: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    variant: str,
) -> None:
    monkeypatch.syspath_prepend(str(plugin_of(variant)))
    attack = import_module(target).attack_in(tmp_path, f"exo_{variant}")

    @settings(
        max_examples=150,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(st.binary(min_size=40, max_size=400))
    def run(data: bytes) -> None:
        attack(data)

    run()
    for name in [name for name in sys.modules if name.partition(".")[0] == f"exo_{variant}"]:
        del sys.modules[name]
