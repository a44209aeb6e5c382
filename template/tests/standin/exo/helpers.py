"""Callbacks and settings that exo keeps in one module."""

import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar

DEBUG = int(os.environ.get("DEBUG", "0"))
VERSION = "0.0.1"

Key = TypeVar("Key")
Value = TypeVar("Value")


class AsyncCallback(Generic[Value]):
    """The observers that share one name."""

    def __init__(self) -> None:
        self.observers: list[Callable[..., object]] = []

    def on_next(self, callback: Callable[..., object]) -> None:
        """Call `callback` for every event from now on."""
        self.observers.append(callback)

    def set(self, *args: object) -> None:
        """Hand one event to every observer."""
        for observer in list(self.observers):
            observer(*args)


class AsyncCallbackSystem(Generic[Key, Value]):
    """Named groups of observers."""

    def __init__(self) -> None:
        self.callbacks: dict[Key, AsyncCallback[Value]] = {}

    def register(self, name: Key) -> AsyncCallback[Value]:
        """Return the group called `name`, made if it is new."""
        return self.callbacks.setdefault(name, AsyncCallback())

    def deregister(self, name: Key) -> None:
        """Forget the group called `name`."""
        self.callbacks.pop(name, None)

    def trigger_all(self, *args: object) -> None:
        """Hand one event to every group."""
        for group in list(self.callbacks.values()):
            group.set(*args)


async def shutdown(signal: Any, loop: Any, server: Any) -> None:
    """End everything that runs. exo's fault: no engine is closed."""
    server.stopped = True
