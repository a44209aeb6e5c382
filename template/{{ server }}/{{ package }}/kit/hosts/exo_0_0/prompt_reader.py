"""Get the messages back out of a prompt that already is in the model's chat template.

The host renders the conversation before the engine sees it, and the server renders again. So the
messages are read back here. The literal marks around each role are learned from the template
itself, by rendering conversations of known words; a reading counts only when rendering it again
gives the very same prompt.
"""

import logging
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from jinja2 import TemplateError

from ...text.chat_template import (
    LOAD_SECONDS,
    PROMPT_SECONDS,
    BoundError,
    ChatTemplate,
    compiled,
    render,
)

logger = logging.getLogger(__name__)

Message = dict[str, str]

OUT_OF_BOUNDS = 3  # so often a template may take more than it may, as on a machine that is busy
ROLES = ("user", "system", "assistant")

# Plain dialogues come first: where one mark could mean two roles, the first one learned is kept.
DIALOGUES: tuple[tuple[str, ...], ...] = (
    ("user",),
    ("user", "assistant"),
    ("user", "assistant", "user", "assistant", "user"),
    ("user", "assistant", "user", "assistant"),
    ("system", "user"),
    ("system", "user", "assistant"),
    ("system", "user", "assistant", "user", "assistant", "user"),
)
PREFIXES: tuple[tuple[str, ...], ...] = (
    (),
    ("user",),
    ("user", "assistant"),
    ("system", "user"),
    ("system", "user", "assistant"),
)


@dataclass(frozen=True)
class _Marks:
    """The literal text that a template puts around the messages."""

    openings: tuple[tuple[str, str], ...]  # (text before the first message, its role)
    separators: dict[str, dict[str, str]]  # role -> text after its message -> role that follows
    tails: tuple[tuple[str, str], ...]  # (text after the last message, its role)

    def readings(self, prompt: str) -> Iterator[list[Message]]:
        """Yield every way to cut the prompt at the marks, the most specific ones first."""
        patterns = {role: _pattern(marks) for role, marks in self.separators.items()}
        for opening, first in self.openings:
            if not prompt.startswith(opening):
                continue
            for tail, last in self.tails:
                end = len(prompt) - len(tail)
                if end < len(opening) or not prompt.endswith(tail):
                    continue
                messages = self._walk(prompt[len(opening) : end], first, patterns)
                if messages[-1]["role"] == last:
                    yield messages

    def _walk(
        self, body: str, role: str, patterns: dict[str, re.Pattern[str] | None]
    ) -> list[Message]:
        """Cut the body at the nearest mark that can follow each role."""
        messages: list[Message] = []
        start = 0
        while True:
            pattern = patterns.get(role)
            found = pattern.search(body, start) if pattern else None
            if found is None:
                messages.append({"role": role, "content": body[start:]})
                return messages
            messages.append({"role": role, "content": body[start : found.start()]})
            start, role = found.end(), self.separators[role][found.group()]


def _longest_first(marks: dict[tuple[str, str], None]) -> tuple[tuple[str, str], ...]:
    """Sort marks by length; marks of one length keep the order in which they were learned."""
    return tuple(sorted(marks, key=lambda mark: -len(mark[0])))


def _pattern(marks: dict[str, str]) -> re.Pattern[str] | None:
    """Match the nearest mark, and the longest one where two begin at the same place."""
    if not marks:
        return None
    return re.compile("|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True)))


def _conversations() -> Iterator[tuple[str, ...]]:
    """Yield the sequences of roles to render: dialogues, then every pair of roles."""
    yield from DIALOGUES
    for prefix, first, second in product(PREFIXES, ROLES, ROLES):
        yield (*prefix, first, second)


class PromptReader:
    """Reads the messages back out of prompts that one chat template made.

    Args:
        template: the Jinja source of the chat template.
        special_tokens: the names that the template may use, such as bos_token and eos_token.
    """

    def __init__(self, template: str, special_tokens: dict[str, str]) -> None:
        self._special_tokens = dict(special_tokens)
        self._marks: _Marks | None = None
        self._logged = False
        self._out_of_bounds = 0
        self._template: ChatTemplate | None = None
        try:
            self._template = compiled(template)
        except TemplateError as error:
            self._log(f"the chat template cannot be compiled ({error})")

    def read(self, prompt: str) -> list[Message]:
        """Return the messages of the prompt; one user message when it cannot be read back."""
        if self._marks is not None and (messages := self._verified(self._marks, prompt)):
            return messages
        # The first prompt, or a template with a date in it, whose marks change overnight.
        marks = self._learn()
        if marks != self._marks:
            self._marks = marks
            if messages := self._verified(marks, prompt):
                return messages
        self._log("a prompt could not be read back with the model's chat template")
        return [{"role": "user", "content": prompt}]

    def _log(self, reason: str) -> None:
        """Say once that prompts go out whole, because each request would repeat it."""
        if not self._logged:
            self._logged = True
            logger.warning(
                "%s: such prompts are sent whole, as one user message. If answers look wrong, "
                "check that the chat template belongs to the model.",
                reason[0].upper() + reason[1:],
            )

    def _verified(self, marks: _Marks, prompt: str) -> list[Message] | None:
        """Return the first reading that renders to the prompt again."""
        for messages in marks.readings(prompt):
            if self._render(messages) == prompt:
                return messages
        return None

    def _render(self, messages: Sequence[Message], most: float = PROMPT_SECONDS) -> str | None:
        """Render a conversation; None when the template refuses it."""
        if self._template is None:
            return None
        try:
            return render(self._template, messages, self._special_tokens, most)
        except BoundError as error:
            self._out_of_bounds += 1
            if self._out_of_bounds == OUT_OF_BOUNDS:
                self._template = None  # each prompt would take as long again
                self._log(str(error))
        except TemplateError:
            pass
        return None

    def _learn(self) -> _Marks:
        """Render conversations of known words and collect what stands between the words."""
        openings: dict[tuple[str, str], None] = {}
        tails: dict[tuple[str, str], None] = {}
        separators: dict[str, dict[str, str]] = {role: {} for role in ROLES}
        until = time.monotonic() + LOAD_SECONDS
        for roles in _conversations():
            left = until - time.monotonic()
            if left <= 0:
                self._log(f"the chat template was not learned within {LOAD_SECONDS:.0f} s")
                break
            pieces = self._cut(roles, min(left, PROMPT_SECONDS))
            if pieces is None:
                continue
            openings.setdefault((pieces[0], roles[0]))
            tails.setdefault((pieces[-1], roles[-1]))
            for mark, role, following in zip(pieces[1:-1], roles, roles[1:], strict=False):
                if mark:
                    separators[role].setdefault(mark, following)
        return _Marks(_longest_first(openings), separators, _longest_first(tails))

    def _cut(self, roles: Sequence[str], most: float) -> list[str] | None:
        """Return the text around the words of one conversation.

        None when the template refuses the conversation, drops a message or moves it.
        """
        words = [f"Zq{index}wordX" for index in range(len(roles))]
        text = self._render(
            [{"role": role, "content": word} for role, word in zip(roles, words, strict=True)], most
        )
        if text is None:
            return None
        pieces: list[str] = []
        for word in words:
            before, found, text = text.partition(word)
            if not found:
                return None
            pieces.append(before)
        pieces.append(text)
        return None if any(word in piece for word in words for piece in pieces) else pieces
