"""What the engine asks of a device, and what it takes from one.

A backend is one of two classes. A StepBackend computes layers, arrays in and arrays out. An
AnswerBackend makes whole answers, as a server does.
"""

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .text.tokenizer import Tokenizer

CONTRACT, OLDEST = 1, 1  # a backend says which it was written for; optional members need no new one

Array = NDArray[Any]
Messages = list[dict[str, str]]
STEP_MEMBERS = ("whole_model", "files", "load", "step", "forget", "close", "check")
ANSWER_MEMBERS = ("load", "answer", "close", "check")


class ContractError(RuntimeError):
    """A backend is, or gave, what no engine can use."""


class Model(NamedTuple):
    """A model that the plugin offers.

    repository: where its tokenizer is, and the files that the backend asks for ("owner/name" of
    the Hugging Face hub). layers: how many the model has.
    """

    id: str
    name: str
    repository: str
    layers: int


@dataclass(frozen=True)
class Layers:
    """Consecutive layers of a model, `first` to `last`, both included, of `total`."""

    model: str
    first: int
    last: int
    total: int

    @property
    def embeds(self) -> bool:
        """Whether the first layer is here: a step begins with token ids."""
        return self.first == 0

    @property
    def ends(self) -> bool:
        """Whether the last layer is here: a step gives logits or the next id."""
        return self.last == self.total - 1

    @property
    def count(self) -> int:
        """How many layers these are."""
        return self.last - self.first + 1


@dataclass(frozen=True)
class Request:
    """What a whole answer is asked for.

    prompt: text in the model's chat template; ids: its tokens. max_tokens is the host's limit,
    temperature and top_p are its sampling; stop: texts that end the answer and are not in it.
    """

    id: str
    prompt: str
    ids: tuple[int, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    read: Callable[[], Awaitable[Messages]] | None = field(default=None, repr=False)

    async def messages(self) -> Messages:
        """The conversation: what the host has, or reads back out of the prompt, off the loop."""
        if self.read is None:
            return [{"role": "user", "content": self.prompt}]
        return await self.read()


@dataclass(frozen=True)
class Piece:
    """A piece of an answer: ids where the device has them, text where it has that.

    thinking: this text is the model's reasoning. finish: on the last piece, why it is the last.
    """

    text: str = ""
    ids: tuple[int, ...] = ()
    thinking: bool = False
    finish: Literal["stop", "length"] | None = None


class StepBackend(Protocol):
    """A device that computes layers.

    One thread makes, loads, steps and closes an instance, as many devices want it; `load` comes
    once. The flags are read from the class. whole_model: it can't run a slice of the layers.
    files: patterns of what load() wants of the model's repository, such as "*.safetensors".

    For many users at once, all optional, each found by its presence:

    step_batch(steps: list[tuple[str, Array]]) -> list[Array | Exception]
        Steps of 2 to 64 different requests, each (request_id, x) as step() takes it; at most one
        has more than one position. Gives what step() would, in order: to the bit, or to the
        rounding of the device's precision, but the same whichever the order. An exception in a
        step's place ends that request alone. Raise only before any state has changed: each step
        then runs alone. One step that nobody accompanies comes to step().
    block: int
        After load(): longer steps come in slices of so many positions, and other requests' steps
        run in between. The same for every node: other slices change the last bits.
    context: int
        After load(): the most positions of a request; a longer prompt is refused at once.
    size(request_id: str | None) -> int
        The bytes that a request's state holds, 0 for an unknown one; they bound the requests. With
        None, those of the loaded layers, for the metrics.
    reuse(request_id: str, other: str, length: int) -> None
        Begin request_id, which is new, with the first `length` positions of other's state. It is
        a copy: other stays as it is, and each may be forgotten without the other. Needs size().
        On a raise the prompt is computed from its beginning.
    """

    @property
    def contract(self) -> int:
        """The CONTRACT that it was written for."""

    @property
    def whole_model(self) -> bool:
        """Whether it runs all layers or none."""

    @property
    def files(self) -> tuple[str, ...]:
        """Patterns of files; empty where it reads none."""

    def load(self, layers: Layers, folder: Path, tokenizer: Tokenizer) -> None:
        """Make the layers ready; folder has the files that were asked for, and the tokenizer's.

        Raise with a sentence when that fails; FileNotFoundError where a file is not there.
        """

    def step(self, request_id: str, x: Array) -> Array:
        """Ids (1, S) int64 or hidden (1, S, D) float32 to hidden, logits (1, 1 or S, V) float32, or
        the next id (1, 1) int64. Raise ValueError where the request is at fault, not the device."""

    def forget(self, request_id: str) -> None:
        """Drop a request's state; an unknown request is no error."""

    def close(self) -> None:
        """Give the device back; also after a load that failed."""

    def check(self) -> str:
        """One line on the device, for doctor, on an instance of its own; raise when unusable."""


class AnswerBackend(Protocol):
    """A device or server that makes whole answers. Its methods run on the event loop."""

    @property
    def contract(self) -> int:
        """The CONTRACT that it was written for."""

    async def load(self, model: Model, tokenizer: Tokenizer) -> None:
        """Make the model ready; raise with a sentence when that fails."""

    def answer(self, request: Request) -> AsyncGenerator[Piece, None]:
        """One answer. One task iterates it; closing it before its end is the cancel."""

    async def close(self) -> None:
        """Give everything back; also after a load that failed."""

    async def check(self) -> str:
        """One line on the device or server, on an instance of its own; raise when unusable."""


Backend = type[StepBackend] | type[AnswerBackend]


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
    wanted = ANSWER_MEMBERS if answers else STEP_MEMBERS
    if missing := [member for member in wanted if not hasattr(backend, member)]:
        raise ContractError(
            f"{name} in backend.py has no {', '.join(missing)}: kit/contract.py says what "
            f"{'an AnswerBackend' if answers else 'a StepBackend'} has"
        )
    if not answers and isinstance(backend.files, str):
        raise ContractError(f"files of {name} in backend.py is a text; it is a tuple of patterns")
    return answers


def checked(output: Any, ends: bool, tokenizer: Tokenizer) -> Array:
    """What step() gave, where it is one of its three forms. Raises ContractError.

    ends: whether the last layer is there, where hidden states are no result.
    """
    if inspect.iscoroutine(output):
        output.close()
    if not isinstance(output, np.ndarray):
        raise _wrong(f"a {type(output).__name__}")
    shown = f"{output.dtype} {output.shape}"
    if ends and np.issubdtype(output.dtype, np.integer):
        if output.shape != (1, 1) or output.item() < 0:
            raise _wrong(f"{shown} of {output.reshape(-1)[:4]}")
        return output
    if output.ndim != 3 or len(output) != 1 or not np.issubdtype(output.dtype, np.floating):
        raise _wrong(shown)
    end = max(tokenizer.eos_token_ids)
    if ends and output.shape[2] <= end:
        raise _wrong(f"{shown}, too few logits for the model's end token {end}")
    return output


def _wrong(given: str) -> ContractError:
    return ContractError(
        f"step() in backend.py gave {given}. It gives logits (1, 1 or S, V) float32, or the next "
        "id (1, 1) int64, or hidden states (1, S, D) float32 before the last layers"
    )
