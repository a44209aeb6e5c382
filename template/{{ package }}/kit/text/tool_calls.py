"""Calls of tools, read out of a model's text as it streams.

Hermes and Qwen: <tool_call>{"name": ..., "arguments": {...}}</tool_call>, several of them. Mistral:
[TOOL_CALLS][{"name": ..., "arguments": {...}}, ...], since v11 [TOOL_CALLS]NAME[ARGS]{...} each.
Llama 3.x: the whole answer is {"name": ..., "parameters": {...}}, or several with "; " between,
maybe behind <|python_tag|>. Qwen3-Coder: <tool_call><function=NAME>, parameters in marks of their
own (xml_calls.py). gpt-oss: a message to=functions.NAME (reasoning.py).
"""

import json
import re
import secrets
import string
from collections.abc import Iterable

from ..contract import ToolCall
from .json_text import is_object, members_of
from .marks import first, overlap
from .reasoning import Part
from .xml_calls import FUNCTION, Schemas, XmlCall

HERMES, MISTRAL = "<tool_call>", "[TOOL_CALLS]"
MARKS = (HERMES, MISTRAL, "<|python_tag|>", FUNCTION)
BETWEEN = ("</tool_call>", ";", ",", "]")  # behind a call, maybe before the next
MOST_CHARACTERS = 1 << 20  # of one call; a longer one is text
MOST_DEPTH = 100  # of its JSON
SLICE = 1 << 12  # characters that are read at a time: what stands behind a mark is copied
MOST_BLANKS = 64  # before a call; more are shown
# Before a call's JSON. What a text may begin with matches, too: a call is one however it is cut.
_BEFORE = re.compile(r"[\s\[]{0,64}")
_NAME = re.compile(r"\s{0,64}([\w.-]{1,128})\s{0,64}(?:\[CALL_ID\]\w{0,64})?(?:\[ARGS\])?\s{0,64}")
_MAYBE_NAME = re.compile(r"[\s\[]{0,64}|\s{0,64}[\w.\[\]-]{0,256}\s{0,64}[\w.\[\]-]{0,256}\s{0,64}")
_MOST_BEFORE = 1024  # characters, more than these match
_MAYBE_CALL = re.compile(r'\{\s*(?:"(?:name|type|function)"|"\w{0,8}$|$)')
_SIGNS = re.compile(r'["\\{}]')
_LETTERS = string.ascii_letters + string.digits


class ToolCallParser:
    """Text and calls told apart; what is no call after all is text.

    names: of the tools that the request has. Without a mark, JSON that names another is text.
    schemas: of their parameters, by which Qwen3-Coder's are typed.
    """

    def __init__(self, names: Iterable[str], schemas: Schemas | None = None) -> None:
        self._names, self._schemas = frozenset(names), schemas or {}
        self.calls: list[ToolCall] = []
        self._held = ""  # the end of a text, where a mark may have begun
        self._begins = True  # nothing but blanks has come
        self._shown = False  # even these were too many to hold
        self._between = False  # a call has just ended
        self._call: _Call | XmlCall | None = None  # that is being read
        self._function, self._arguments = "", list[str]()  # of gpt-oss

    def feed(self, part: Part) -> str:
        """What is to be shown of one more part."""
        output = self._end_function() if part.function != self._function else ""
        if part.function:
            self._function = part.function
            self._arguments.append(part.text)
            return output
        return output + self._feed(part.text, last=False)

    def rest(self) -> str:
        """What is to be shown at the end: a call that is none, or what was held back."""
        return self._end_function() + self._feed("", last=True)

    def _end_function(self) -> str:
        name, arguments = self._function, "".join(self._arguments)
        self._function, self._arguments = "", []
        if name and is_object(arguments):
            self.calls.append(_tool_call(name, arguments))
            return ""
        return arguments

    def _feed(self, text: str, last: bool) -> str:
        output = list[str]()
        waiting = _slices(self._held + text)
        self._held = ""
        while waiting:
            text, self._held = self._held + waiting.pop(), ""
            while 0 < len(text) <= 2 * SLICE:
                text = (
                    self._read_text(text, last and not waiting, output)
                    if self._call is None
                    else self._read_call(self._call, text, output)
                )
            waiting += _slices(text)  # of a long call that is none
        if last and self._call is not None:
            output.append(self._call.text)
            self._call = None
        return "".join(output)

    def _read_text(self, text: str, last: bool, output: list[str]) -> str:
        """Show a text up to a call; what is left of it."""
        if self._between and not (text := self._behind_call(text, last)):
            return ""
        if self._begins and (begin := text.lstrip()).startswith("{"):
            blanks = text[: len(text) - len(begin)]
            if self._shown or len(blanks) >= MOST_BLANKS:
                output.append(blanks)
                blanks = ""
            self._call = _Call("", blanks)
            return begin
        at, mark = first(text, MARKS)
        end = at if mark or last else at - overlap(text, MARKS)
        self._begins = self._begins and not text[:end].strip()
        belongs = self._begins and not self._shown and end < MOST_BLANKS and not last
        if belongs and not mark:
            end = 0  # blanks before a call are not shown
        if not belongs or not mark:
            output.append(text[:end])
            self._shown = self._shown or end > 0
        if not mark:
            self._held = text[end:]
            return ""
        return self._begin_marked(mark, text[:at] if belongs else "", text[at + len(mark) :], last)

    def _begin_marked(self, mark: str, blanks: str, behind: str, last: bool) -> str:
        """Read what stands behind a mark as a call, of the kind that it shows; what is left."""
        within = behind.lstrip() if mark == HERMES else ""
        size = len(behind) - len(within)
        if mark == HERMES and size < MOST_BLANKS and not last and FUNCTION.startswith(within):
            self._held = blanks + mark + behind  # of which kind it is isn't known yet
            return ""
        if mark == FUNCTION:
            self._call = XmlCall(blanks + mark, self._schemas)
        elif size < MOST_BLANKS and within.startswith(FUNCTION):
            self._call = XmlCall(blanks + mark + behind[:size] + FUNCTION, self._schemas)
            return within[len(FUNCTION) :]
        else:
            self._call = _Call(mark, blanks)
        return behind

    def _behind_call(self, text: str, last: bool) -> str:
        """A text without what stands between two calls."""
        text = text.lstrip()
        while mark := next((mark for mark in BETWEEN if text.startswith(mark)), ""):
            text = text[len(mark) :].lstrip()
        if text and (last or not BETWEEN[0].startswith(text)):
            self._between, self._begins = False, text.startswith("{")
        elif not last:
            self._held, text = text, ""
        return text

    def _read_call(self, call: "_Call | XmlCall", text: str, output: list[str]) -> str:
        """Read on in a call; what is left of the text behind it."""
        rest = call.feed(text)
        if call.broken:  # what stands behind its first mark, or brace, is text, maybe with others
            self._call, self._begins = None, False
            whole, size = call.text, call.begin
            output.append(whole[:size])
            return whole[size:]
        if rest is None:
            return ""
        self._call = None
        if (tool_call := self._read(call)) is None:
            output.append(call.text)
            self._begins = False
        else:
            self.calls.append(tool_call)
            self._between = True
        return rest

    def _read(self, call: "_Call | XmlCall") -> ToolCall | None:
        if isinstance(call, _Call):
            return call.read(self._names)
        bare = call.text.lstrip().startswith(FUNCTION)  # without a mark around it
        return (
            None if bare and call.name not in self._names else _tool_call(call.name, call.arguments)
        )


class _Call:
    """What stands behind a mark, up to the end of a JSON object."""

    def __init__(self, mark: str, blanks: str) -> None:
        self._mark, self._blanks = mark, blanks
        self._before = ""  # the JSON
        self._pieces = list[str]()  # of the JSON
        self._size = 0
        self._depth, self._quoted, self._escaped = 0, False, False
        self.broken = False

    @property
    def text(self) -> str:
        """All that has been read, with the blanks and the mark before it."""
        return self._blanks + self._mark + self._before + "".join(self._pieces)

    @property
    def begin(self) -> int:
        """How many characters of its text show that it may be a call: up to the mark or brace."""
        return len(self._blanks) + len(self._mark or "{")

    def feed(self, text: str) -> str | None:
        """What stands behind the end of the JSON; None where it has not ended, or is broken."""
        if not self._depth:
            text, self._before = self._before + text, ""
            at = text.find("{", 0, _MOST_BEFORE)
            before = text[: _MOST_BEFORE if at < 0 else at]
            maybe = _MAYBE_NAME if self._mark == MISTRAL else _BEFORE
            if not maybe.fullmatch(before):
                self._pieces, self.broken = [text], True
                return None
            self._before, text = before, text[len(before) :]
            if at < 0:
                return None
        end = self._end(text)
        self._pieces.append(text if end is None else text[:end])
        self._size += len(self._pieces[-1])
        if self._size > MOST_CHARACTERS or (not self._mark and not self._maybe_call()):
            self.broken = True
        if self.broken:
            self._pieces[-1] = text
        return None if end is None or self.broken else text[end:]

    def _end(self, text: str) -> int | None:
        """Where the JSON ends, if it does in this text; a string's braces are none."""
        place, self._escaped = int(self._escaped), False
        while sign := _SIGNS.search(text, place):
            place = sign.end()
            if sign[0] == '"':
                self._quoted = not self._quoted
            elif sign[0] == "\\":
                place += 1
                self._escaped = place > len(text)
            elif not self._quoted:
                self._depth += 1 if sign[0] == "{" else -1
                self.broken = self._depth > MOST_DEPTH
                if self.broken:
                    return None
                if not self._depth:
                    return place
        return None

    def _maybe_call(self) -> bool:
        """Whether JSON without a mark may be a call, by how it begins."""
        if self._size - len(self._pieces[-1]) > 64:
            return True  # it was looked at
        return _MAYBE_CALL.match("".join(self._pieces)[:64]) is not None

    def read(self, names: frozenset[str]) -> ToolCall | None:
        """The call that it is; None where it is none."""
        text = "".join(self._pieces)
        if self._mark == MISTRAL and (named := _NAME.fullmatch(self._before)):
            return _tool_call(named[1], text, self._mark) if is_object(text) else None
        try:
            members = members_of(text)
            name = json.loads(members.get("name") or members["function"])
            arguments = members.get("arguments") or members.get("parameters") or "null"
            if arguments.startswith('"'):  # the object as a text
                arguments = json.loads(arguments)
        except (ValueError, LookupError, RecursionError):
            return None
        arguments = "{}" if arguments == "null" else arguments
        known = isinstance(name, str) and (bool(self._mark and name) or name in names)
        return _tool_call(name, arguments, self._mark) if known and is_object(arguments) else None


def _slices(text: str) -> list[str]:
    """A text in slices, the last one first."""
    return [text[n : n + SLICE] for n in range(0, len(text), SLICE)][::-1]


def _tool_call(name: str, arguments: str, mark: str = "") -> ToolCall:
    """A call with an id; Mistral's templates take none but of nine letters and digits."""
    letters = "".join(secrets.choice(_LETTERS) for _ in range(9 if mark == MISTRAL else 24))
    return ToolCall(letters if mark == MISTRAL else f"call_{letters}", name, arguments)
