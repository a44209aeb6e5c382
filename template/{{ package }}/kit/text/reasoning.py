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
