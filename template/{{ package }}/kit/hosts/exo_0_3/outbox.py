"""What answers say, until exo takes it: joined, since each chunk costs exo an event.

exo sends every chunk through its master, a log on disk and every node, one after the other; its
process takes some 3 ms of a core for each, which a model that computes on all cores waits for.
"""

import threading
import time
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

from ...contract import Logprob, Piece

PACE_SECONDS = 0.2  # between two chunks of a streamed answer: nobody reads faster
EARLY_SECONDS, EARLY = 0.1, 1.0  # likewise, as long after its first one
EVENT_SECONDS = 0.05  # and between any two chunks, over all answers
LONGEST_SECONDS = 0.5  # that a text waits, however many answers there are
UNSEEN_SECONDS = 1.0  # between two chunks of an answer that is not streamed: nobody reads along


class Text(NamedTuple):
    """A part of an answer's text, and the last token in it; logprob: of the only one."""

    text: str
    thinking: bool
    token: int
    logprob: Logprob | None = None


def texts_of(piece: Piece) -> list[Text]:
    """A piece's texts: one, but where each token has its logprob; the last has the piece's text."""
    token = piece.ids[-1] if piece.ids else 0
    if not piece.logprobs:
        return [Text(piece.text, piece.thinking, token)] if piece.text else []
    texts = [Text("", piece.thinking, each.id, each) for each in piece.logprobs]
    return [*texts[:-1], texts[-1]._replace(text=piece.text)]


@dataclass
class _Answer:
    streamed: bool
    begun: float | None = None  # when exo had its first text, in seconds of time.monotonic()
    sent: float = 0.0  # and its latest
    texts: list[Text] = field(default_factory=list)
    last: tuple[Any, ...] = ()  # what ends it

    def due(self, now: float, least: float) -> bool:
        """Whether exo is to have its texts now: the first and the last at once.

        least: seconds between two chunks that the other answers leave it.
        """
        if self.last or not self.texts or self.begun is None:
            return bool(self.last or self.texts)
        pace = UNSEEN_SECONDS
        if self.streamed:
            own = EARLY_SECONDS if now - self.begun < EARLY else PACE_SECONDS
            pace = min(LONGEST_SECONDS, max(own, least))
        return now - self.sent >= pace


class Outbox:
    """Any thread puts; exo's takes. Nothing of an answer comes out after its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._urgent = threading.Event()
        self._answers: dict[str, _Answer] = {}

    def open(self, key: str, streamed: bool) -> None:
        """An answer begins."""
        with self._lock:
            now = time.monotonic()
            self._answers[key] = _Answer(streamed, None if streamed else now, now)

    def put(self, key: str, text: Text) -> None:
        """A text of an answer; dropped where the answer has ended."""
        with self._lock:
            answer = self._answers.get(key)
            if answer is None or answer.last:
                return
            answer.texts.append(text)
            if answer.begun is None:
                self._urgent.set()

    def end(self, key: str, *last: Any) -> None:
        """What ends an answer; dropped where it has ended already."""
        with self._lock:
            answer = self._answers.get(key)
            if answer is not None and not answer.last:
                answer.last = last
                self._urgent.set()

    def take(self, seconds: float) -> list[tuple[str, list[Text], tuple[Any, ...]]]:
        """(key, its texts, joined, what ends it) of each answer that is due.

        Waits up to so many seconds for a first text or an end.
        """
        self._urgent.wait(seconds)
        with self._lock:
            self._urgent.clear()
            now, least = time.monotonic(), EVENT_SECONDS * len(self._answers)
            due = [(key, each) for key, each in self._answers.items() if each.due(now, least)]
            taken = [(key, _joined(each.texts), each.last) for key, each in due]
            for key, each in due:
                each.texts, each.sent, each.begun = [], now, each.begun or now
                if each.last:
                    del self._answers[key]
        return taken


def _joined(texts: list[Text]) -> list[Text]:
    """Neighbours of one kind as one; a chunk of exo's has one token's logprob at most."""
    joined = []
    kinds = (text.thinking if text.logprob is None else object() for text in texts)
    for _, group in groupby(zip(kinds, texts, strict=True), key=lambda pair: pair[0]):
        parts = [text for _, text in group]
        joined.append(parts[-1]._replace(text="".join(part.text for part in parts)))
    return joined
