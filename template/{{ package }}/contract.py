"""What the engine asks of a device, and what it takes from one."""

from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .tokenizer import Tokenizer

Array = NDArray[Any]


class ContractError(RuntimeError):
    """A backend gave what no engine can use."""


class BackendContract(Protocol):
    """What the engine asks of a device.

    Plain methods run on the engine's one worker thread; async ones are awaited on the loop.
    whole_model: it can't run a slice of the layers (a compiled model, a server).
    needs_files: load() wants the model's files, exo's downloader fetches them.
    takes_text: the first x of a request is the prompt itself, UTF-8 bytes (1, N) uint8.
    """

    whole_model: bool
    needs_files: bool
    takes_text: bool

    def load(self, shard: Any, path: Path | None, tokenizer: Tokenizer) -> Awaitable[None] | None:
        """Make the shard's layers ready; raise with a sentence when that fails."""

    def forward(self, request_id: str, x: Array) -> Awaitable[Array] | Array:
        """One step: ids (1, S) int64 or hidden states (1, S, D) float32 to hidden states, logits
        (1, 1 or S, V) float32, or the next id (1, 1) int64. Raise ValueError where the request is
        at fault and not the device."""

    def forget(self, request_id: str) -> Awaitable[None] | None:
        """Drop a request's state; an unknown request is no error."""

    def close(self) -> Awaitable[None] | None:
        """Give the device back."""

    def check(self) -> Awaitable[str] | str:
        """One line on the device, without loading a model; raise when it can't be used."""


def checked(output: Any, last: bool, tokenizer: Tokenizer) -> Array:
    """What forward() gave, where it is one of its three forms. Raises ContractError.

    last: whether the shard has the last layers, where hidden states are no result.
    """
    if not isinstance(output, np.ndarray):
        raise _wrong(f"a {type(output).__name__}")
    shown = f"{output.dtype} {output.shape}"
    if last and np.issubdtype(output.dtype, np.integer):
        if output.shape != (1, 1) or output.item() < 0:
            raise _wrong(f"{shown} of {output.reshape(-1)[:4]}")
        return output
    if output.ndim != 3 or len(output) != 1 or not np.issubdtype(output.dtype, np.floating):
        raise _wrong(shown)
    end = max(tokenizer.eos_token_ids)
    if last and output.shape[2] <= end:
        raise _wrong(f"{shown}, too few logits for the model's end token {end}")
    return output


def _wrong(given: str) -> ContractError:
    return ContractError(
        f"forward() in backend.py gave {given}. It gives logits (1, 1 or S, V) float32, or the "
        "next id (1, 1) int64, or hidden states (1, S, D) float32 before the last layers"
    )
