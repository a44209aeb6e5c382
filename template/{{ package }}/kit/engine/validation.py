"""What a backend is, and what it gave, held against the contract."""

import inspect
from typing import Any

import numpy as np

from ..contract import CONTRACT, OLDEST, Array, ContractError

STEP_MEMBERS = ("whole_model", "files", "load", "step", "forget", "close", "check")
ANSWER_MEMBERS = ("load", "answer", "close", "check")


def makes_answers(backend: Any) -> bool:
    """Whether a class is an AnswerBackend. Raises ContractError where it is neither kind."""
    name = getattr(backend, "__name__", repr(backend))
    contract = getattr(backend, "contract", None)
    if type(contract) is not int or not OLDEST <= contract <= CONTRACT:
        raise ContractError(
            f"{name} in backend.py says contract = {contract!r}, and this plugin's kit/ knows "
            f"{OLDEST} to {CONTRACT}: see CHANGELOG.md of the template for what has changed"
        )
    answers = hasattr(backend, "answer")
    required = ANSWER_MEMBERS if answers else STEP_MEMBERS
    if missing := [member for member in required if not hasattr(backend, member)]:
        raise ContractError(
            f"{name} in backend.py has no {', '.join(missing)}: kit/contract.py says what "
            f"{'an AnswerBackend' if answers else 'a StepBackend'} has"
        )
    if isinstance(getattr(backend, "files", ()), str):
        raise ContractError(f"files of {name} in backend.py is a text; it is a tuple of patterns")
    return answers


def step_output(output: Any, ends: bool, end_id: int) -> Array:
    """What step() gave, where it is one of its three forms. Raises ContractError.

    ends: whether the last layer is there, where hidden states are no result. end_id: the last of
    the model's end tokens, which needs a logit.
    """
    if inspect.iscoroutine(output):
        output.close()
    if not isinstance(output, np.ndarray):
        raise _wrong(f"a {type(output).__name__}")
    form = f"{output.dtype} {output.shape}"
    if ends and np.issubdtype(output.dtype, np.integer):
        if output.shape != (1, 1) or output.item() < 0:
            raise _wrong(f"{form} of {output.reshape(-1)[:4]}")
        return output
    if output.ndim != 3 or len(output) != 1 or not np.issubdtype(output.dtype, np.floating):
        raise _wrong(form)
    if ends and output.shape[2] <= end_id:
        raise _wrong(f"{form}, too few logits for the model's end token {end_id}")
    return output


def _wrong(value: str) -> ContractError:
    return ContractError(
        f"step() in backend.py gave {value}. It gives logits (1, 1 or S, V) float32, or the next "
        "id (1, 1) int64, or hidden states (1, S, D) float32 before the last layers"
    )


def step_outputs(outputs: Any, count: int) -> list[Any]:
    """What step_batch() gave for so many steps. Raises ContractError."""
    if not isinstance(outputs, list) or len(outputs) != count:
        raise ContractError(
            f"step_batch() in backend.py gave {type(outputs).__name__} for {count} steps; it gives "
            "a list with an array, or an exception, for each of them"
        )
    return outputs


def positions(backend: Any, name: str) -> int | None:
    """A number of positions that a backend may tell after its load. Raises ContractError."""
    number = getattr(backend, name, None)
    if number is not None and (type(number) is not int or number < 1):
        raise ContractError(f"{name} in backend.py is {number!r}; it is a whole number above 0")
    return number


def text_line(line: Any) -> str:
    """What check() gave. Raises ContractError."""
    if not isinstance(line, str):
        raise ContractError(f"check() in backend.py gives {line!r}; it gives one line of text")
    return line
