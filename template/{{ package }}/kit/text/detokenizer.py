"""Ids to text as they come, and the texts that end an answer."""

from collections.abc import Callable, Sequence


class Detokenizer:
    """Text from ids as they come: a character of several tokens waits until it is whole."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._shown = ""

    def feed(self, ids: Sequence[int]) -> str:
        """What can be shown after these ids."""
        return "".join(self._one(token) for token in ids)

    def _one(self, token: int) -> str:
        self._ids.append(token)
        text = self._decode(self._ids)
        if text.endswith("\ufffd"):
            return ""
        new = text[len(self._shown) :]
        # Keep the last id as context: many decoders treat the first token of a text differently.
        self._ids = [token]
        self._shown = self._decode(self._ids)
        if self._shown.endswith("\ufffd"):
            # Half a character can't be context; start over after it.
            self._ids, self._shown = [], ""
        return new

    def rest(self) -> str:
        """What is left at the end: a character that never became whole."""
        return self._decode(self._ids)[len(self._shown) :] if self._ids else ""


class StopTexts:
    """Holds back what may be the beginning of a text that ends the answer."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = [text for text in stop if text]
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """What can be shown; nothing from the first stop text on."""
        if self.found or not self._stop:
            return "" if self.found else text
        self._held += text
        places = [self._held.find(stop) for stop in self._stop]
        if ends := [place for place in places if place >= 0]:
            self.found = True
            shown, self._held = self._held[: min(ends)], ""
            return shown
        keep = max(self._overlap(stop) for stop in self._stop)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return shown

    def _overlap(self, stop: str) -> int:
        """How many characters at the end of the text could begin this stop text."""
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(stop[:n])), 0)

    def rest(self) -> str:
        """What was held back, when no stop text came of it."""
        held, self._held = self._held, ""
        return held
