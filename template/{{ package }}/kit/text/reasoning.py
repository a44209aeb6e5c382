"""Reasoning and answer told apart in the one text that a model writes, and put together again."""

from typing import NamedTuple

from .marks import first, overlap

OPEN, CLOSE = "<think>", "</think>"  # around reasoning, as most models write it
MARKS = {  # the opening and the closing one
    OPEN: CLOSE,  # DeepSeek-R1, Qwen 3, GLM, Granite, ...
    "[THINK]": "[/THINK]",  # Magistral
    "<seed:think>": "</seed:think>",  # Seed-OSS
    "\u25c1think\u25b7": "\u25c1/think\u25b7",  # Kimi
}
# gpt-oss: <|channel|>NAME<|message|>TEXT<|end|><|start|>assistant<|channel|>NAME<|message|>TEXT
CHANNEL, MESSAGE = "<|channel|>", "<|message|>"
START = "<|start|>"
BODY_ENDS = (START, CHANNEL, "<|end|>", "<|call|>", "<|return|>")
MOST_BEGIN = 64  # characters of blanks and the first mark
LONGEST_HEADER = 256  # characters; "commentary to=functions.NAME <|constrain|>json"


class Part(NamedTuple):
    """A part of an answer's text; function: it is of the arguments of a call of that function."""

    text: str
    thinking: bool = False
    function: str = ""


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
    """Tells reasoning and answer apart, by the marks with which an answer begins.

    prompt: where it ends with an opening mark, as templates write it, reasoning comes first. Marks
    behind the beginning of the answer are text. The line breaks behind a mark belong to it.
    """

    def __init__(self, prompt: str) -> None:
        end = prompt.rstrip()
        self._close = next((close for mark, close in MARKS.items() if end.endswith(mark)), "")
        self._begins = not self._close  # nothing but blanks has come
        self._trims = not self._begins  # a mark has just come
        self._held = ""
        self._channels: _Channels | None = None

    @property
    def inside(self) -> bool:
        """Whether what comes next is reasoning."""
        return bool(self._close) or (self._channels is not None and self._channels.thinking)

    @property
    def undecided(self) -> bool:
        """Whether a mark may have begun, and nothing is known of what has come."""
        return self._begins and bool(self._held)

    def skip(self) -> None:
        """The device tells reasoning apart: marks are text."""
        self._begins, self._close, self._trims = False, "", False

    def feed(self, text: str, last: bool = False) -> list[Part]:
        """Parts of the text without the marks.

        last: nothing follows, so nothing that may be the beginning of a mark is held back.
        """
        text, self._held = self._held + text, ""
        if self._begins:
            text = self._begin(text, last)
        if self._channels is not None:
            return self._channels.feed(text, last)
        parts = []
        if self._close:
            at, mark = first(text := self._trimmed(text), [self._close])
            end = at if mark or last else at - overlap(text, [self._close])
            parts.append(Part(text[:end], thinking=True))
            if mark:
                self._close, self._trims, text = "", True, text[at + len(mark) :]
            else:
                text, self._held = "", text[end:]
        parts.append(Part(self._trimmed(text)))
        return [part for part in parts if part.text]

    def _begin(self, text: str, last: bool) -> str:
        """The text behind a mark that the answer begins with; the text itself where none does."""
        begin, marks = text.lstrip(), (*MARKS, CHANNEL)
        half = begin not in marks and any(mark.startswith(begin) for mark in marks)
        if half and not last and len(text) < MOST_BEGIN:
            self._held = text
            return ""
        self._begins = False
        mark = next((mark for mark in marks if begin.startswith(mark)), "")
        if not mark or len(text) - len(begin) + len(mark) > MOST_BEGIN:
            return text
        if mark == CHANNEL:
            self._channels = _Channels()
            return begin
        self._close, self._trims = MARKS[mark], True
        return begin[len(mark) :]

    def _trimmed(self, text: str) -> str:
        """A text without the line breaks that belong to the mark before it."""
        if self._trims and (text := text.lstrip("\n")):
            self._trims = False
        return text


class _Channels:
    """gpt-oss's messages: the channel says whether one is reasoning, or a call of a function."""

    def __init__(self) -> None:
        self._held = ""
        self._in_header = False
        self._part = Part("")  # what the message's text is

    @property
    def thinking(self) -> bool:
        """Whether this message is reasoning."""
        return self._part.thinking

    def feed(self, text: str, last: bool) -> list[Part]:
        """Parts of the text without headers and marks."""
        self._held += text
        parts = list[Part]()
        while self._read_header(last) if self._in_header else self._read_body(parts, last):
            pass
        return [part for part in parts if part.text]

    def _read_body(self, parts: list[Part], last: bool) -> bool:
        """Take what is of this message; whether it has ended."""
        at, mark = first(self._held, BODY_ENDS)
        end = at if mark or last else at - overlap(self._held, BODY_ENDS)
        parts.append(self._part._replace(text=self._held[:end]))
        self._held = self._held[end + len(mark) :]
        if mark:
            self._part, self._in_header = Part(""), mark in (START, CHANNEL)
        return bool(mark)

    def _read_header(self, last: bool) -> bool:
        """Read up to where the message begins; whether it does."""
        at = self._held.find(MESSAGE, 0, LONGEST_HEADER)
        if at >= 0:
            header, self._held = self._held[:at], self._held[at + len(MESSAGE) :]
            channel = header.rpartition(CHANNEL)[2]
            function = channel.partition("to=functions.")[2].split("<|")[0].split()
            self._part = Part("", channel.lstrip().startswith("analysis"), "".join(function[:1]))
            self._in_header = False
        elif len(self._held) > LONGEST_HEADER:
            self._in_header = False  # no header: the text that it is
        elif last:
            self._held = ""  # cut in the middle of it: nobody is to see that
        return not self._in_header
