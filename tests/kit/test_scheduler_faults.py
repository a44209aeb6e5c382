"""Nobody waits for ever: a fault within the engine ends its requests, and in words."""

import asyncio
import threading

import numpy as np
import pytest
from running import answer_of, count, request, until, value
from toy import ToyAnswers, ToyBackend, ToyMany

from exo_kit.kit.contract import DeviceError, Piece, RequestError
from exo_kit.kit.engine.answer_stream import MOST_WAITING, AnswerStream
from exo_kit.kit.engine.thread import WatchedThread

ONE = np.array([[3]])


class Waiting(ToyAnswers):
    """Says one letter, and then nothing."""

    async def answer(self, request):
        yield self.piece(ids=(4,))
        await asyncio.Event().wait()


class Held(ToyMany):
    """Its steps take until they are let go."""

    def __init__(self):
        super().__init__()
        self.entered, self.go_on = threading.Event(), threading.Event()

    def _step(self, request_id, x):
        self.entered.set()
        assert self.go_on.wait(30)
        return super()._step(request_id, x)


@pytest.fixture
async def held(new_runner):
    """A runner whose device computes the step of "first", its instance, and that step."""
    runner = await new_runner(Held)
    device = runner.executor.instance
    step = asyncio.ensure_future(runner.step("first", ONE))
    await until(device.entered.is_set)
    yield runner, device, step
    device.go_on.set()


async def test_a_cancelled_task_of_an_answer_ends_it_in_words(new_runner):
    runner = await new_runner(Waiting)
    failed = count("failed", "request")
    answer = runner.answer(request(runner, "abc"))
    await anext(answer)
    following = asyncio.ensure_future(anext(answer))
    await asyncio.sleep(0)
    runner.requests.get("request").stream.task.cancel()
    async with asyncio.timeout(30):
        with pytest.raises(RequestError, match="what made this answer was cancelled"):
            await following
    assert count("failed", "request") == failed + 1
    assert value("requests_in_flight") == 0


async def test_a_backend_that_cancels_itself_ends_its_answer_in_words(new_runner):
    class Cancels(ToyAnswers):
        async def answer(self, request):
            yield self.piece(ids=(4,))
            raise asyncio.CancelledError

    runner = await new_runner(Cancels)
    async with asyncio.timeout(30):
        with pytest.raises(RequestError, match="what made this answer was cancelled"):
            await answer_of(runner, "abc")


async def test_who_takes_behind_the_end_of_a_stream_never_waits():
    async def pieces():
        return
        yield

    stream = AnswerStream(pieces())
    async with asyncio.timeout(30):
        assert (await stream.next()).finish == "stop"
        with pytest.raises(RequestError, match="this answer has ended"):
            await stream.next()


async def test_a_backend_waits_for_a_reader_that_is_far_behind():
    steps = []

    async def pieces():
        for number in range(2 * MOST_WAITING):
            steps.append(number)
            yield Piece(ids=(number,))

    stream = AnswerStream(pieces())
    async with asyncio.timeout(30):
        await until(lambda: len(steps) >= MOST_WAITING)
        assert len(steps) == MOST_WAITING
        taken = [(await stream.next()).ids for _ in range(2 * MOST_WAITING)]
    assert taken == [(number,) for number in range(2 * MOST_WAITING)]
    assert (await stream.next()).finish == "stop"


async def test_a_result_that_is_cancelled_ends_its_requests_in_words(held):
    runner, _, step = held
    next(iter(runner.executor._thread._jobs)).result.cancel()
    async with asyncio.timeout(30):
        with pytest.raises(RequestError, match="its step was cancelled"):
            await step


async def test_a_fault_of_the_schedulers_own_ends_its_requests(held, monkeypatch, caplog):
    runner, device, step = held

    def broken(*_):
        raise KeyError("cached")

    monkeypatch.setattr(runner._scheduler._cache, "add", broken)
    device.go_on.set()
    async with asyncio.timeout(30):
        with pytest.raises(KeyError):
            await step
        monkeypatch.undo()
        assert (await runner.step("other", ONE)).shape[1] == 1
    assert "could not be handed on" in caplog.text


async def test_a_caller_that_is_cancelled_ends_its_request(held):
    runner, device, step = held
    cancelled = count("cancelled")
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert count("cancelled") == cancelled + 1
    with pytest.raises(RequestError, match="its step was cancelled"):
        await runner.step("first", ONE)
    device.go_on.set()
    await until(lambda: device.forgotten == ["first"])


async def test_an_ended_request_is_forgotten_before_a_new_one_of_its_id(held):
    runner, device, step = held
    order = []
    forget, compute = device.forget, device.step
    device.forget = lambda name: (order.append("forget"), forget(name))
    device.step = lambda name, x: (order.append("step"), compute(name, x))[1]
    runner.requests.fail("first", "a test", "request")
    runner.requests._ended.clear()  # it is remembered for many requests only
    again = asyncio.ensure_future(runner.step("first", np.array([[1, 2]])))
    with pytest.raises(RequestError, match="a test"):
        await step
    device.go_on.set()
    await again
    assert order == ["forget", "step"]
    assert len(device.states["first"]) == 2


async def test_a_second_step_of_an_id_is_refused_and_changes_nothing(held):
    runner, device, step = held
    with pytest.raises(RequestError, match="in a step already"):
        await runner.step("first", ONE)
    device.go_on.set()
    assert (await step).shape[1] == 1


async def test_a_job_that_hung_says_when_it_is_back():
    thread, go_on = WatchedThread("test", "it hangs"), threading.Event()
    job = thread.submit(lambda: go_on.wait(30), 0.01)
    with pytest.raises(DeviceError, match="it hangs"):
        await job
    assert thread.hung is job
    with pytest.raises(DeviceError, match="it hangs"):
        await thread.submit(lambda: None, 30.0)
    unbounded = thread.submit(lambda: "came to its turn")
    assert not job.returned.done()
    go_on.set()
    async with asyncio.timeout(30):
        await job.returned
        assert await unbounded == "came to its turn"
    assert thread.hung is None
    thread.stop()


async def test_events_that_watch_are_set_at_each_end(new_runner):
    runner, event = await new_runner(ToyBackend), asyncio.Event()
    runner.requests.watch(event)
    await runner.step("r", ONE)
    assert not event.is_set()
    runner.requests.finish("r")
    assert event.is_set()
