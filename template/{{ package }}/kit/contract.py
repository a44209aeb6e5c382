"""What the engine asks of a device, and what it takes from one.

A backend is one of two classes. A StepBackend computes layers, arrays in and arrays out. An
AnswerBackend makes whole answers, as a server or a vendor's runtime does.
"""

from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .cards import Model
from .text.tokenizer import Tokenizer

CONTRACT, OLDEST = 1, 1  # a backend says which it was written for; optional members need no new one

Message = dict[str, Any]  # as OpenAI's API has it: role, content, tool_calls, ...
Messages = list[Message]
Finish = Literal["stop", "length", "tool_calls"]

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
else:

    def __getattr__(name: str) -> Any:
        """Array, where a module takes it: the command and exo's own processes need no NumPy."""
        if name != "Array":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from numpy.typing import NDArray

        return NDArray[Any]


class ContractError(RuntimeError):
    """A backend is, or gave, what no engine can use."""


class LoadError(RuntimeError):
    """A model could not be made ready; the text says why."""


class DeviceError(RuntimeError):
    """The device doesn't answer."""


class RequestError(ValueError):
    """A request that can't go on; the device is not at fault."""


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
class Sampling:
    """How the next token is chosen; each default is neutral, temperature 0 the most likely token.

    The sampler applies it to a device's logits; a server is sent what departs from neutral.
    logprobs: of how many of the likeliest tokens the log-probability is wanted too, beside that of
    the chosen one; None of none.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logprobs: int | None = None


@dataclass(frozen=True)
class Request:
    """What a whole answer is asked for.

    prompt: text in the model's chat template; ids: its tokens. max_tokens: the host's limit, in
    tokens. stop: texts that end the answer and are not in it. messages, tools: as the client sent
    them; None where the host has a prompt alone. thinking: whether the model shall reason first;
    None where nobody said.
    """

    id: str
    prompt: str
    ids: tuple[int, ...]
    max_tokens: int
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    messages: Messages | None = None
    tools: list[dict[str, Any]] | None = None
    thinking: bool | None = None

    def conversation(self) -> Messages:
        """The messages, for what takes nothing else; a bare prompt is the user's one message."""
        if self.messages is None:
            return [{"role": "user", "content": self.prompt}]
        return self.messages


@dataclass(frozen=True)
class Logprob:
    """A token's log-probability, and (id, log-probability) of the likeliest, the largest first.

    They are the model's own, of its raw logits: no temperature or penalty is in them.
    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class ToolCall:
    """A function that the model wants called; arguments: a JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Usage:
    """What an answer took, in tokens; reused: of the prompt, reasoning: of the completion."""

    prompt_tokens: int
    completion_tokens: int
    reused_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True)
class Piece:
    """A piece of an answer: ids where the device has them, text where it has that.

    thinking: this text is the model's reasoning. tool_calls: whole ones; the engine hands all of an
    answer out with its last piece. finish: on the last piece, why it is the last; there is the
    usage too, where the device counts better than the engine. logprobs: one for each of the ids,
    where the request wants them.
    """

    text: str = ""
    ids: tuple[int, ...] = ()
    thinking: bool = False
    tool_calls: tuple[ToolCall, ...] = ()
    finish: Finish | None = None
    usage: Usage | None = None
    logprobs: tuple[Logprob, ...] = ()


class StepBackend(Protocol):
    """A device that computes layers.

    One thread makes, loads, steps and closes an instance, as many devices want it; `load` comes
    once. The flags are read from the class. whole_model: it can't run a slice of the layers.
    files: patterns of what load() wants of the model's repository, such as "*.safetensors".

    For many users at once, each found by its presence:

    step_batch(steps: list[tuple[str, Array]]) -> list[Array | Exception]    (optional)
        Steps of 2 to 64 different requests, each (request_id, x) as step() takes it; at most one
        has more than one position. Gives what step() would, in order: to the bit, or to the
        rounding of the device's precision, but the same whichever the order. An exception in a
        step's place ends that request alone. Raise only before any state has changed: each step
        then runs alone. One step that nobody accompanies comes to step().
    block: int    (optional)
        After load(): longer steps come in slices of so many positions, and other requests' steps
        run in between. The same for every node: other slices change the last bits.
    context: int    (optional)
        After load(): the most positions of a request; a longer prompt is refused at once.
    size(request_id: str | None) -> int    (optional)
        The bytes that a request's state holds, 0 for an unknown one; they bound the requests. With
        None, those of the loaded layers, for the metrics.
    reuse(request_id: str, other: str, length: int) -> None    (optional)
        Begin request_id, which is new, with the first `length` positions of other's state. It is
        a copy: other stays as it is, and each may be forgotten without the other. Needs size().
        On a raise the prompt is computed from its beginning; NotImplementedError says that the
        loaded model has none, and it isn't called again.
    local_files: tuple[str, ...]    (optional)
        Patterns of weights that load() takes as well where a folder has them, such as "*.onnx", of
        the class: with them a folder is whole, and none is downloaded.
    unsupported: tuple[str, ...]    (optional)
        What of a request it can't do, of the class: "tools", "logprobs" or names of Sampling's
        members. A request that needs tools is refused with a sentence; of the others there is one
        warning a model.
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

    def step(self, request_id: str, x: "Array") -> "Array":
        """Ids (1, S) int64 or hidden (1, S, D) float32 to hidden, logits (1, 1 or S, V) float32, or
        the next id (1, 1) int64. Raise ValueError where the request is at fault, not the device."""

    def forget(self, request_id: str) -> None:
        """Drop a request's state; an unknown request is no error."""

    def close(self) -> None:
        """Give the device back; also after a load that failed."""

    def check(self) -> str:
        """One line on the device, for doctor, on an instance of its own; raise when unusable."""


class AnswerBackend(Protocol):
    """A device or server that makes whole answers. Its methods run on the event loop.

    Three flags, read from the class:

    files: tuple[str, ...]    (optional)
        Patterns of what load() wants of the model's repository, as a StepBackend has them.
    blocking: bool    (optional)
        True for a device that is driven by calls that wait: it is a BlockingAnswerBackend.
    unsupported: tuple[str, ...]    (optional)
        As a StepBackend has it; without it, logprobs are.
    """

    @property
    def contract(self) -> int:
        """The CONTRACT that it was written for."""

    async def load(self, model: Model, folder: Path | None, tokenizer: Tokenizer) -> None:
        """Make the model ready; folder has the files that were asked for, None without `files`.

        Raise with a sentence when that fails; FileNotFoundError where a file is not there.
        """

    def answer(self, request: Request) -> AsyncGenerator[Piece, None]:
        """One answer. One task iterates it; closing it before its end is the cancel."""

    async def close(self) -> None:
        """Give everything back; also after a load that failed."""

    async def check(self) -> str:
        """One line on the device or server, on an instance of its own; raise when unusable."""


class BlockingAnswerBackend(Protocol):
    """An AnswerBackend of plain methods: one thread makes, loads, runs and closes an instance.

    One answer at a time; others wait for their turn. A piece may take as long as a step.
    """

    blocking: Literal[True]

    @property
    def contract(self) -> int:
        """The CONTRACT that it was written for."""

    def load(self, model: Model, folder: Path | None, tokenizer: Tokenizer) -> None:
        """As AnswerBackend's."""

    def answer(self, request: Request) -> Generator[Piece, None, None]:
        """One answer, a plain generator; it is closed on the thread, before its end to cancel."""

    def close(self) -> None:
        """As AnswerBackend's."""

    def check(self) -> str:
        """As AnswerBackend's."""


Backend = type[StepBackend] | type[AnswerBackend] | type[BlockingAnswerBackend]
