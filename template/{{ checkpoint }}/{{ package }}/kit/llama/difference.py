"""Where a device's numbers part from the reference's: what a parity test says when it fails."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ..contract import Array, Layers
from .cache import Cache
from .config import Config
from .llama import REFERENCE, Model, Operations, forward
from .weights import load_model

NAME = "difference"  # of the model and of the request


class _Differs(Exception):
    """An operation that differs."""


def first_difference(
    backend: Callable[[], Any],
    folder: Path,
    steps: Sequence[Array],
    tolerance: float,
    own: Operations = REFERENCE,
) -> str:
    """The first layer that differs by itself, given what the reference's layers before it give.

    steps: ids (1, S) of one request. tolerance: of the largest number. own: the operations that
    the backend computes with, where they are a table; the first that differs is named.
    """
    config = Config.from_folder(folder)
    inputs = list(steps)
    for n in range(config.layers):
        model, device = load_model(folder, config, n, n), backend()
        outputs = []
        try:
            device.load(Layers(NAME, n, n, config.layers), folder, None)
            for number, expected in enumerate(_run(model, inputs)):
                error = _error(device.step(NAME, inputs[number])[0], expected)
                if not error <= tolerance:
                    place = f"layer {n}" + ", or the logits behind it," * (model.head is not None)
                    rows, which = inputs[number].shape[1], f"step {number + 1}"
                    return (
                        f"{place} is the first that differs: in {which}, of {rows} positions, by "
                        f"{error:.1e} of the largest number (tolerance {tolerance:.0e})"
                        f"{_operation(model, inputs[: number + 1], tolerance, own)}"
                    )
                outputs.append(expected[None])
        finally:
            device.close()
        inputs = outputs
    return "each layer by itself is right: what differs is what one hands to the next"


def _run(model: Model, inputs: Sequence[Array], op: Operations = REFERENCE) -> Iterator[Array]:
    """The reference's output of each step."""
    cache = Cache(model.config, len(model.layers))
    for x in inputs:
        cache.make_room(x.shape[1])
        yield forward(x[0], [cache.part(x.shape[1])], model, op)
        cache.length += x.shape[1]


def _error(result: Any, expected: Array) -> float:
    """The largest difference, of the largest number; infinite for another shape."""
    if np.shape(result) != expected.shape:
        return float("inf")
    return float(np.abs(result - expected).max() / np.abs(expected).max())


def _operation(model: Model, inputs: Sequence[Array], tolerance: float, own: Operations) -> str:
    """The first operation of a table that differs, given what the reference's would be."""

    def watched(name: str) -> Callable[..., Array]:
        reference, mine = getattr(REFERENCE, name), getattr(own, name)

        def call(*arguments: Any) -> Array:
            copies = [REFERENCE if isinstance(a, Operations) else deepcopy(a) for a in arguments]
            expected: Array = reference(*arguments)
            error = _error(mine(*copies), expected)
            if not error <= tolerance:
                raise _Differs(f"; there, {name} is the first operation, by {error:.1e}")
            return expected

        return reference if mine is reference else call

    table = Operations(**{field.name: watched(field.name) for field in fields(Operations)})
    try:
        for _ in _run(model, inputs, table):
            pass
    except _Differs as fault:
        return str(fault)
    return ""
