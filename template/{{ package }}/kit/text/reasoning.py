"""Reasoning that a device tells apart, and the marks that models write around it."""

OPEN, CLOSE = "<think>", "</think>"  # around reasoning, as models write it


class ReasoningMarks:
    """Reasoning that a device tells apart, within the marks that models write around it."""

    def __init__(self, prompt: str) -> None:
        self._opened = prompt.rstrip().endswith(OPEN)  # by the model's template
        self._inside = False

    def feed(self, text: str, thinking: bool, finish: str | None) -> str:
        """A piece's text, with the marks before and after it where they belong."""
        if text and thinking and not self._inside:
            text = text if self._opened else OPEN + text
            self._inside, self._opened = True, False
        if self._inside and ((text and not thinking) or finish == "stop"):
            self._inside = False
            text = text + CLOSE if thinking else CLOSE + text
        return text


class ReasoningParser:
    """Tells reasoning and answer apart in a model's text, by the marks around the reasoning.

    prompt: where it ends with the opening mark, as templates write it, reasoning comes first.
    """

    def __init__(self, prompt: str) -> None:
        self._inside, self._held = prompt.rstrip().endswith(OPEN), ""

    def feed(self, text: str, thinking: bool, last: bool) -> list[tuple[str, bool]]:
        """Parts of the text without the marks, and whether each is reasoning.

        thinking: the device has told them apart itself. last: nothing follows, so nothing that may
        be the beginning of a mark is held back.
        """
        if thinking:
            return [(text, True)] if text else []
        self._held += text
        parts = []
        while (at := self._held.find(mark := CLOSE if self._inside else OPEN)) >= 0:
            parts.append((self._held[:at], self._inside))
            self._held, self._inside = self._held[at + len(mark) :], not self._inside
        longest = 0 if last else min(len(mark) - 1, len(self._held))
        keep = next((n for n in range(longest, 0, -1) if self._held.endswith(mark[:n])), 0)
        parts.append((self._held[: len(self._held) - keep], self._inside))
        self._held = self._held[len(self._held) - keep :]
        return [part for part in parts if part[0]]
