"""A device that fails or hangs: whose answers end, what is told, and what goes on."""

import asyncio
import threading
from types import SimpleNamespace

import pytest
from running import answer_of, count, until, value
from toy import ToyBackend

from exo_kit.kit.contract import (
    DeviceError,
    Layers,
    LoadError,
)
from exo_kit.kit.engine import executor as device_module
from exo_kit.kit.engine import thread as thread_module


async def test_backend_up_tells_a_failure_and_the_recovery_without_traffic(new_runner, monkeypatch):
    monkeypatch.setattr(device_module, "CHECK_SECONDS", 0.01)

    class Flaky(ToyBackend):
        broken = True

        def step(self, request_id, x):
            if self.broken:
                raise OSError("the device went away")
            return super().step(request_id, x)

        def check(self):
            if self.broken:
                raise OSError("the device went away")
            return "back"

    runner = await new_runner(Flaky)
    with pytest.raises(OSError, match="went away"):
        await answer_of(runner)
    assert value("backend_up") == 0
    Flaky.broken = False
    await until(lambda: value("backend_up") == 1)


async def test_a_fault_of_the_request_leaves_the_device_up(new_runner):
    class Short(ToyBackend):
        def step(self, request_id, x):
            if x.shape[1] > 3:
                raise ValueError("the prompt is too long")
            return super().step(request_id, x)

    runner = await new_runner(Short)
    await answer_of(runner, "abc", most=1)
    failed = count("failed", "request")
    with pytest.raises(ValueError, match="too long"):
        await answer_of(runner, "abcd", "long")
    assert value("backend_up") == 1
    assert count("failed", "request") == failed + 1


class Hanging(ToyBackend):
    """Hangs in the steps of one request."""

    entered, released = threading.Event(), threading.Event()

    def step(self, request_id, x):
        if request_id == "hangs":
            self.entered.set()
            self.released.wait(30)
        return super().step(request_id, x)


@pytest.fixture
async def hanging(new_runner, monkeypatch):
    monkeypatch.setenv(f"{device_module.settings.PREFIX}STEP_SECONDS", "0.05")
    Hanging.entered.clear()
    Hanging.released.clear()
    yield await new_runner(Hanging)
    Hanging.released.set()


async def test_a_hung_device_ends_its_requests_and_is_told(hanging, caplog, monkeypatch):
    async with asyncio.timeout(30):
        with pytest.raises(DeviceError, match="not come back from a step within"):
            await answer_of(hanging, "abc", "hangs")
        with pytest.raises(DeviceError, match="not come back"):
            await answer_of(hanging, "abc", "another")
    assert value("backend_up") == 0
    assert [r.message for r in caplog.records if "hangs in a step" in r.message] != []
    Hanging.released.set()
    await until(lambda: value("backend_up") == 1)
    monkeypatch.setattr(hanging.executor, "_seconds", 30.0)  # a busy machine is no hung device
    assert (await answer_of(hanging, "abc", "third", 1))[1] == "d"


async def test_a_hung_device_loads_nothing_else(hanging, source):
    with pytest.raises(DeviceError):
        await answer_of(hanging, "abc", "hangs")
    with pytest.raises(LoadError, match="the device hangs in a step"):
        async with asyncio.timeout(30):
            await hanging.load(Layers("toy", 0, 1, 4), source)


async def test_closing_does_not_wait_for_a_hung_device(hanging):
    with pytest.raises(DeviceError):
        await answer_of(hanging, "abc", "hangs")
    async with asyncio.timeout(30):
        await hanging.close(0.05)
    assert not Hanging.released.is_set()


async def test_a_long_queue_is_no_hung_device(new_runner, monkeypatch):
    """By a clock that the steps alone move; each is looked at after it has moved it."""
    monkeypatch.setenv(f"{device_module.settings.PREFIX}STEP_SECONDS", "0.05")
    now, looked = [0.0], threading.Event()
    monkeypatch.setattr(thread_module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    class Slow(ToyBackend):
        def step(self, request_id, x):
            now[0] += 0.03
            looked.clear()
            assert looked.wait(30)
            return super().step(request_id, x)

    runner = await new_runner(Slow)
    watch = runner.executor._thread._watch

    def look():
        watch()
        looked.set()

    monkeypatch.setattr(runner.executor._thread, "_watch", look)
    answers = await asyncio.gather(*(answer_of(runner, "abc", str(n), 1) for n in range(4)))
    assert {text for _, text, _ in answers} == {"d"}


async def test_a_backend_that_fails_to_let_go_ends_nobody_else(new_runner, caplog):
    class Clumsy(ToyBackend):
        def forget(self, request_id):
            raise OSError("cannot forget")

    runner = await new_runner(Clumsy)
    await answer_of(runner)
    assert (await answer_of(runner, "abc", "other", 1))[1] == "d"
    await runner.close()
    assert "failed to let go" in caplog.text
