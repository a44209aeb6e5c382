"""A toy model, and scripted backends that run it: the id after n is n + 1."""

import asyncio
import json
import os
import string
import threading
from collections.abc import AsyncGenerator, Generator
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tokenizers
from plugin import PACKAGE

_OTHERS = [c for c in string.printable if not c.islower() and c != " "]
VOCABULARY = ["<zero>", *string.ascii_lowercase, " ", "<stop>", "<end>", *_OTHERS]
STOP = VOCABULARY.index("<stop>")
END = VOCABULARY.index("<end>")

Array = np.ndarray[Any, np.dtype[Any]]


def write_tokenizer(repo: str, eos: int = END, also: tuple[int, ...] = ()) -> Path:
    """Write a tokenizer of one id a letter where exo keeps a repository's files."""
    folder = Path(os.environ["EXO_HOME"]) / "downloads" / repo.replace("/", "--")
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: number for number, token in enumerate(VOCABULARY)}
    fast = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="<zero>"))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    fast.decoder = tokenizers.decoders.Fuse()
    fast.add_special_tokens(["<zero>", "<stop>", "<end>"])
    fast.save(str(folder / "tokenizer.json"))
    config = {"eos_token": VOCABULARY[eos]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [eos, *also]}))
    return folder


class ToyBackend:
    """A StepBackend of the toy model: each layer adds 1 / layers to every row. It counts."""

    contract = 1
    whole_model: bool = False
    files: tuple[str, ...] = ()
    made: ClassVar[list["ToyBackend"]] = []

    def __init__(self) -> None:
        self.threads: list[int] = []
        self._here()
        self.layers: Any = None
        self.folder: Path | None = None
        self.loads = 0
        self.closed = 0
        self.live: set[str] = set()
        self.most_live = 0
        self.forgotten: list[str] = []
        ToyBackend.made.append(self)

    def _here(self) -> None:
        """Keep the thread of a call."""
        self.threads.append(threading.get_ident())

    def load(self, layers: Any, folder: Path, tokenizer: Any) -> None:
        """Keep the slice."""
        self._here()
        self.loads += 1
        self.layers, self.folder = layers, folder

    def step(self, request_id: str, x: Array) -> Array:
        """Ids (1, S), or hidden (1, S, 1), to hidden, or logits (1, 1, V)."""
        self._here()
        self.live.add(request_id)
        self.most_live = max(self.most_live, len(self.live))
        hidden = x.astype(np.float32).reshape(1, -1, 1)  # [1, S, 1]
        hidden = hidden + self.layers.count / self.layers.total
        if not self.layers.ends:
            return np.asarray(hidden, dtype=np.float32)
        logits = np.zeros((1, 1, len(VOCABULARY)), dtype=np.float32)
        logits[0, 0, round(float(hidden[0, -1, 0])) % len(VOCABULARY)] = 1.0
        return logits

    def forget(self, request_id: str) -> None:
        """Drop a request."""
        self._here()
        self.live.discard(request_id)
        self.forgotten.append(request_id)

    def close(self) -> None:
        """Count."""
        self._here()
        self.closed += 1

    def check(self) -> str:
        """Say that the toy is there."""
        return "toy"


class ToyMany(ToyBackend):
    """A StepBackend for many users, whose next id depends on every row that a request has had."""

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[str, list[float]] = {}
        self.batches: list[list[tuple[str, int]]] = []  # who went together, and with how many rows

    def step(self, request_id: str, x: Array) -> Array:
        """One request by itself."""
        self.batches.append([(request_id, x.shape[1])])
        return self._step(request_id, x)

    def step_batch(self, steps: list[tuple[str, Array]]) -> list[Any]:
        """Several; what one of them raises ends that one."""
        self.batches.append([(request_id, x.shape[1]) for request_id, x in steps])
        outputs: list[Any] = []
        for request_id, x in steps:
            try:
                outputs.append(self._step(request_id, x))
            except ValueError as error:
                outputs.append(error)
        return outputs

    def _step(self, request_id: str, x: Array) -> Array:
        self._here()
        self.live.add(request_id)
        rows = self.states.setdefault(request_id, [])
        for n, row in enumerate(x.reshape(-1).tolist(), len(rows)):
            rows.append((n + 1) * row)
        if not self.layers.ends:
            total = np.cumsum(rows, dtype=np.float32)[-x.shape[1] :]
            return (total % 997).reshape(1, -1, 1)
        logits = np.zeros((1, 1, len(VOCABULARY)), dtype=np.float32)
        logits[0, 0, int(sum(rows)) % STOP] = 1.0  # never the end: answers have their full length
        return logits

    def size(self, request_id: str) -> int:
        """Bytes of what is held."""
        return 1000 * len(self.states.get(request_id, ()))

    def reuse(self, request_id: str, other: str, length: int) -> None:
        """Copy the first rows."""
        self._here()
        assert request_id not in self.states
        assert length <= len(self.states[other])
        self.states[request_id] = self.states[other][:length]

    def forget(self, request_id: str) -> None:
        """Drop the rows too."""
        super().forget(request_id)
        self.states.pop(request_id, None)


class ToyAnswers:
    """An AnswerBackend of the same model: the whole answer as ids, one a piece."""

    contract = 1
    made: ClassVar[list["ToyAnswers"]] = []

    def __init__(self) -> None:
        self.model: Any = None
        self.closed = 0
        self.live: set[str] = set()
        self.requests: list[Any] = []
        self.cancelled: list[str] = []
        ToyAnswers.made.append(self)

    async def load(self, model: Any, folder: Path | None, tokenizer: Any) -> None:
        """Keep what is asked for."""
        self.model, self.folder, self.tokenizer = model, folder, tokenizer

    async def answer(self, request: Any) -> AsyncGenerator[Any, None]:
        """Count up from the prompt's last id."""
        self.requests.append(request)
        self.live.add(request.id)
        try:
            token = request.ids[-1]
            for _ in range(request.max_tokens):
                token = (token + 1) % len(VOCABULARY)
                if token in self.tokenizer.eos_token_ids:
                    yield self.piece(finish="stop")
                    return
                await asyncio.sleep(0)
                yield self.piece(ids=(token,))
            yield self.piece(finish="length")
        except GeneratorExit:
            self.cancelled.append(request.id)
            raise
        finally:
            self.live.discard(request.id)

    def piece(self, **members: Any) -> Any:
        """A piece as this plugin's contract has it."""
        return import_module(f"{PACKAGE}.kit.contract").Piece(**members)

    async def close(self) -> None:
        """Count."""
        self.closed += 1

    async def check(self) -> str:
        """Say that the toy is there."""
        return "toy"


class ToyBlocking:
    """An AnswerBackend of plain methods, which keeps who called it and what happened in order."""

    contract = 1
    blocking = True
    files = ("*.toy",)
    made: ClassVar[list["ToyBlocking"]] = []

    def __init__(self) -> None:
        self.threads = [threading.get_ident()]
        self.events: list[tuple[str, str]] = []
        self.live: set[str] = set()
        ToyBlocking.made.append(self)

    def load(self, model: Any, folder: Path | None, tokenizer: Any) -> None:
        """Keep what is asked for."""
        self.threads.append(threading.get_ident())
        self.model, self.folder, self.tokenizer = model, folder, tokenizer

    def answer(self, request: Any) -> Generator[Any, None, None]:
        """Count up from the prompt's last id."""
        self.events.append(("begin", request.id))
        self.live.add(request.id)
        piece, token = import_module(f"{PACKAGE}.kit.contract").Piece, request.ids[-1]
        try:
            for _ in range(request.max_tokens):
                self.threads.append(threading.get_ident())
                token = (token + 1) % len(VOCABULARY)
                if token in self.tokenizer.eos_token_ids:
                    yield piece(finish="stop")
                    return
                yield piece(ids=(token,))
            yield piece(finish="length")
        finally:
            self.threads.append(threading.get_ident())
            self.events.append(("end", request.id))
            self.live.discard(request.id)

    def close(self) -> None:
        """Keep the order."""
        self.threads.append(threading.get_ident())
        self.events.append(("close", ""))

    def check(self) -> str:
        """Say that the toy is there."""
        return "toy"


class WholeToy(ToyBackend):
    """Runs whole models, a step at a time."""

    whole_model = True


KINDS = [ToyBackend, WholeToy, ToyAnswers]  # of backends, for exo 0.0
