"""A queue between two processes."""

from multiprocessing import get_context
from queue import Empty
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class MpSender(Generic[T]):
    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def send(self, item: T) -> None:
        self._queue.put(item)


class MpReceiver(MpSender[T]):
    @property
    def reader(self) -> Any:
        return self._queue._reader

    def receive(self, block: bool = True) -> T:
        item: T = self._queue.get(block)
        return item

    def collect(self) -> list[T]:
        """What is there now."""
        items: list[T] = []
        while True:
            try:
                items.append(self.receive(block=False))
            except Empty:
                return items


def mp_channel() -> tuple[MpSender[Any], MpReceiver[Any]]:
    queue = get_context("spawn").Queue()
    return MpSender(queue), MpReceiver(queue)
