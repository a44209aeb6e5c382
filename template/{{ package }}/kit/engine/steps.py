"""A request's steps on the device: long ones in blocks, behind what another request computed."""

from collections.abc import Awaitable
from typing import Any

import numpy as np

from .. import metrics
from ..contract import Array, RequestError
from ..text.tokenizer import Tokenizer
from .executor import Executor
from .prefix_cache import PrefixCache
from .requests import Requests
from .scheduler import DroppedError
from .validation import checked


class Steps:
    """Computes steps, and keeps what went in and came out for prompts that begin alike."""

    def __init__(self, executor: Executor, states: PrefixCache, requests: Requests) -> None:
        self._executor, self._states, self._requests = executor, states, requests

    async def compute(
        self, request_id: str, x: Array, begins: bool, ends: bool, tokenizer: Tokenizer
    ) -> Array:
        """What a step gives, as contract.py has it. Raises as Engine.step() does.

        begins: it is the request's first. ends: the layers have the head.
        """
        at, outputs = await self._taken_over(request_id, x) if begins else (0, [])
        block = self._executor.block or x.shape[1]
        # The same blocks on every node: others would change the last bits of its sums.
        for first in range(at, x.shape[1], block):
            rows = x[:, first : first + block]
            given, size = await self._step(request_id, rows, "prefill" if begins else "decode")
            output = checked(given, ends, tokenizer)
            self._keep(request_id, rows, None if ends else output, size)
            outputs.append(output)
        return outputs[-1] if ends or len(outputs) == 1 else np.concatenate(outputs, axis=1)

    async def _taken_over(self, request_id: str, x: Array) -> tuple[int, list[Array]]:
        """How many rows of a prompt another request has computed, and what came out for them."""
        most = self._executor.context
        if most is not None and x.shape[1] > most:
            raise ValueError(
                f"the prompt is too long: with it there are {x.shape[1]} tokens, and the model's "
                f"context ends at {most}"
            )
        self._states.drop(request_id)  # an ended answer may have had the same id
        found = self._states.find(x)
        if found is None or not await self._on_device(
            self._executor.reuse(request_id, found.request_id, found.length)
        ):
            return 0, []
        self._keep(request_id, x[:, : found.length], found.outputs, 0)
        metrics.REUSE_HITS.inc()
        metrics.REUSED_TOKENS.inc(found.length)
        return found.length, [] if found.outputs is None else [found.outputs]

    def _keep(self, request_id: str, x: Array, output: Array | None, size: int) -> None:
        if request_id in self._requests:  # it may have ended while it was computed
            self._states.add(request_id, x, output, size)

    async def _step(self, request_id: str, x: Array, phase: str) -> tuple[Any, int]:
        """One call of the device, and the bytes that it holds of the request."""
        if request_id not in self._requests:
            raise RequestError(self._requests.why(request_id))
        try:
            found: tuple[Any, int] = await self._on_device(
                self._executor.step(request_id, x, phase)
            )
        except DroppedError:
            raise RequestError(self._requests.why(request_id)) from None
        return found

    async def _on_device(self, call: Awaitable[Any]) -> Any:
        """Await the device; it is down after an error that isn't the request's."""
        try:
            return await call
        except (ValueError, DroppedError):
            raise
        except Exception:
            self._executor.went_well(False)
            raise
