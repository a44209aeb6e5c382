"""How many threads the process's BLAS may have: its own setting, and the plugin's."""

import subprocess
import sys

import pytest

from exo_kit.backend import Backend
from exo_kit.kit.llama import threads
from exo_kit.kit.settings import PREFIX, SettingError

REAL = """
from types import SimpleNamespace
from threadpoolctl import threadpool_info
from exo_kit.backend import Backend
from exo_kit.kit.llama import threads

model = SimpleNamespace(config=SimpleNamespace(hidden_size=4096, intermediate_size=4096))
chosen = threads.of_process()
with chosen.step(model, 1):
    print(*{library["num_threads"] for library in threadpool_info()}, chosen)
"""


def in_a_process(monkeypatch, **env):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-c", REAL]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_librarys_own_setting_is_the_most(monkeypatch):
    output = in_a_process(monkeypatch, OPENBLAS_NUM_THREADS="1")
    if output.startswith("1"):
        assert output == "1 1 of 1 threads"
    else:
        pytest.skip("NumPy's BLAS is none that threadpoolctl knows")


def test_a_setting_reaches_the_library(monkeypatch):
    output = in_a_process(monkeypatch, OPENBLAS_NUM_THREADS="1", **{PREFIX + "THREADS": "2"})
    if output[0].isdigit() and " of " in output[2:]:
        assert output == "2 2 of 1 threads (a setting)"
    else:
        pytest.skip("NumPy's BLAS is none that threadpoolctl knows")


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "9" * 5000, "²"])
def test_a_setting_that_is_no_number_is_a_sentence(monkeypatch, text):
    monkeypatch.setenv(PREFIX + "THREADS", text)
    threads.of_process.cache_clear()
    with pytest.raises(SettingError, match=f"{PREFIX}THREADS is .*a whole number from 1 on"):
        threads.of_process()


def test_check_says_the_threads():
    assert Backend().check().endswith(f", {threads.of_process()}")
