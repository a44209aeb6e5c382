"""What is still held for requests, found in the containers of the whole process."""

import enum
import gc
import weakref
from collections import deque
from collections.abc import Iterator
from itertools import compress, repeat
from types import FunctionType, ModuleType
from typing import Any

PLAIN = (str, bytes, int, float, bool, type(None), enum.Enum, weakref.ref)
_CONTAINERS = (dict, list, set, deque)


def is_plain(value: object) -> bool:
    """Bookkeeping, such as why a request has ended; small, and no part of its work."""
    return isinstance(value, PLAIN) or (isinstance(value, tuple) and all(map(is_plain, value)))


def states_of(request_id: str, node: Any) -> list[str]:
    """The kinds of what is still held under a request's id, by anybody but exo's own node."""
    exos = {id(value) for value in vars(node).values()}
    dicts = [c for c in containers() if isinstance(c, dict) and id(c) not in exos]
    values = [dict.get(container, request_id) for container in dicts]
    return sorted(type(value).__name__ for value in values if not is_plain(value))


def containers() -> Iterator[Any]:
    """Every container of the process; the collector knows none that holds plain things alone."""
    known = gc.get_objects()
    yield from _only_containers(known)
    # Before Python 3.12.5, asyncio's module gives what it has freed, and the collector never ends
    # from then on (python/cpython, issue 122695). A module's dict is among the known ones.
    below = gc.get_referents(*(o for o in known if type(o) is not ModuleType))
    yield from (c for c in _only_containers(below) if not gc.is_tracked(c))


def _only_containers(objects: list[Any]) -> Iterator[Any]:
    """A process has a million of objects: no line of Python runs for each."""
    return compress(objects, map(isinstance, objects, repeat(_CONTAINERS)))


class Growth:
    """Which containers have grown since this was made, and by what."""

    def __init__(self, device: object) -> None:
        gc.collect()
        records = _below(device)
        self.sizes = {id(c): len(c) for c in self._all() if id(c) not in records}

    def _all(self) -> Iterator[Any]:
        return (c for c in containers() if len(c) > 50)

    def by(self, count: int) -> list[str]:
        """Containers that have grown by so many things that are not plain."""
        gc.collect()
        grown = []
        for container in self._all():
            if len(container) - self.sizes.get(id(container), len(container)) < count:
                continue
            values = container.values() if isinstance(container, dict) else container
            newest = list(values)[-count // 2 :]
            if container is not self.sizes and not all(map(is_plain, newest)):
                grown.append(f"a {type(container).__name__} of {type(newest[-1]).__name__}")
        return sorted(grown)


def _below(device: object) -> set[int]:
    """What a test device holds itself: its records are no fault of the plugin's."""
    below, layer = set[int](), [device]
    for _ in range(8):
        layer = [r for r in gc.get_referents(*layer) if id(r) not in below]
        layer = [r for r in layer if not isinstance(r, ModuleType | FunctionType | type)]
        below |= set(map(id, layer))
    return below
