"""Marks in a text that comes in pieces: half of one is held back until it is known what it is."""

from collections.abc import Iterable


def overlap(text: str, marks: Iterable[str]) -> int:
    """How many characters at the end of a text could begin one of these marks."""
    return max((_overlap(text, mark) for mark in marks), default=0)


def _overlap(text: str, mark: str) -> int:
    longest = min(len(mark) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(mark[:n])), 0)


def first(text: str, marks: Iterable[str]) -> tuple[int, str]:
    """Where the first of these marks begins, and which it is; (len(text), "") without any."""
    matches = [(at, mark) for mark in marks if (at := text.find(mark)) >= 0]
    return min(matches, default=(len(text), ""))
