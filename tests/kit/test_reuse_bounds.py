"""What is kept of earlier prompts is bounded: by the device's memory, in number and in bytes."""

import numpy as np
import pytest
from reusing import HALVES, PAST, conversation, held_bytes, rows
from running import answer_of, until
from toy import ToyMany

from exo_kit.kit.contract import RequestError
from exo_kit.kit.engine import requests
from exo_kit.kit.engine.prefix_cache import BLOCK
from exo_kit.kit.settings import PREFIX, SettingError, size


async def test_a_device_that_uses_its_memory_anew_spoils_nothing(new_runner):
    class Anew(ToyMany):
        memory = np.zeros((1, 64, 1), np.float32)

        def _step(self, request_id, x):
            output = self.memory[:, : x.shape[1]]
            output[:] = super()._step(request_id, x)
            return output

    runner = await new_runner(Anew, layers=HALVES[0])
    x = np.array([[*range(40)]])
    expected = (await runner.step("one", x)).copy()
    runner.requests.finish("one")
    x[0, 0] = 9  # and a host its own
    await runner.step("other", np.array([[*range(50, 9, -1)]]))
    result = await runner.step("two", np.array([[*range(40)]]))
    np.testing.assert_array_equal(result, expected)
    assert rows(runner) == [40, 41, 40 - BLOCK]


async def test_a_device_that_tells_no_bytes_keeps_nothing(new_runner):
    runner = await new_runner(type("Odd", (ToyMany,), {"size": None}))
    await conversation(runner, PAST, PAST)
    assert rows(runner)[4] == len(PAST)


async def test_a_device_that_fails_to_copy_computes_the_prompt(new_runner, off, caplog):
    class Clumsy(ToyMany):
        def reuse(self, request_id, other, length):
            self.states[request_id] = [1.0, 2.0]
            raise OSError("no room")

    runner = await new_runner(Clumsy)
    assert await conversation(runner, PAST, PAST) == await conversation(off, PAST, PAST)
    assert "reuse() in backend.py failed" in caplog.text


async def test_what_is_kept_is_bounded_and_the_oldest_goes_first(new_runner, monkeypatch):
    monkeypatch.setenv(f"{PREFIX}CACHE_BYTES", "100K")
    runner = await new_runner(ToyMany)
    device = runner.executor.instance
    for n in range(4):
        await answer_of(runner, 38 * "abcd"[n], str(n), 3)  # and 2 rows of the answer
    await until(lambda: device.forgotten == ["0", "1"])
    assert held_bytes("kept") == 2 * (40 * 1000 + 38 * 8)
    assert held_bytes("in_flight") == 0
    await answer_of(runner, 38 * "c", "c again", 1)  # what was used last stays
    await until(lambda: list(device.states) == ["c again"])  # which has all that 2 has
    assert device.forgotten == ["0", "1", "3", "2"]


async def test_who_is_in_flight_comes_before_what_is_kept(new_runner, monkeypatch):
    monkeypatch.setenv(f"{PREFIX}CACHE_BYTES", "100K")
    monkeypatch.setattr(requests, "WAIT_SECONDS", 0.01)
    runner = await new_runner(ToyMany)
    await answer_of(runner, 40 * "a", "ended", 1)
    await runner.step("large", np.array([[*range(60)]]))
    await runner.step("larger", np.array([[*range(1, 60)]]))
    await until(lambda: runner.executor.instance.forgotten == ["ended"])
    with pytest.raises(RequestError, match="2 requests are in flight already"):
        await runner.step("one more", np.array([[1]]))
    runner.requests.finish("large")
    await runner.step("then", np.array([[1]]))


async def test_nothing_is_kept_where_nothing_may_be(new_runner, monkeypatch):
    monkeypatch.setenv(f"{PREFIX}CACHE_BYTES", "0")
    runner = await new_runner(ToyMany)
    await conversation(runner, PAST, PAST)
    assert rows(runner)[4] == len(PAST)
    await until(lambda: runner.executor.instance.states == {})


@pytest.mark.parametrize(
    ("text", "expected"), [("", None), ("0", 0), ("7", 7), ("2K", 2048), ("3G", 3 << 30)]
)
def test_a_number_of_bytes(monkeypatch, text, expected):
    monkeypatch.setenv(f"{PREFIX}CACHE_BYTES", text)
    assert size("CACHE_BYTES") == expected


@pytest.mark.parametrize("text", ["-1", "2T", "G", "1.5G", "2GK", "\u0661"])
def test_what_is_no_number_of_bytes_is_told(monkeypatch, text):
    monkeypatch.setenv(f"{PREFIX}CACHE_BYTES", text)
    with pytest.raises(SettingError, match=r"CACHE_BYTES is .* such as 2G"):
        size("CACHE_BYTES")
