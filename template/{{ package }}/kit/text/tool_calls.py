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
MOST_BLANKS = 64  # before a call
MOST_CHARACTERS = 1 << 20  # of one call; a longer one is text
MOST_DEPTH = 100  # of its JSON
_BEFORE = re.compile(r"[\s\[]{0,64}")  # a call's JSON
_NAME = re.compile(r"\s*([\w.-]{1,128})\s*(?:\[CALL_ID\]\w*)?(?:\[ARGS\])?\s*")
_MAYBE_NAME = re.compile(r"\s*[\w.\[\]-]{0,256}\s*")
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
        self._begins = True  # nothing but blanks has been shown
        self._between = False  # a call has just ended
        self._call: _Call | XmlCall | None = None  # that is being read
        self._function, self._arguments = "", list[str]()  # of gpt-oss

    def feed(self, part: Part) -> str:
        """What is to be shown of one more part."""
        shown = self._end_function() if part.function != self._function else ""
        if part.function:
            self._function = part.function
            self._arguments.append(part.text)
            return shown
        return shown + self._feed(part.text, last=False)

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
        shown = list[str]()
        text, self._held = self._held + text, ""
        while text:
            text = (
                self._read_text(text, last, shown)
                if self._call is None
                else self._read_call(self._call, text, shown)
            )
        if last and self._call is not None:
            shown.append(self._call.text)
            self._call = None
        return "".join(shown)

    def _read_text(self, text: str, last: bool, shown: list[str]) -> str:
        """Show a text up to a call; what is left of it."""
        if self._between and not (text := self._behind_call(text, last)):
            return ""
        if self._begins and text.lstrip().startswith("{"):
            self._call = _Call("")
            return text.lstrip()
        at, mark = first(text, MARKS)
        end = at if mark or last else at - overlap(text, MARKS)
        if self._begins and len(text) < MOST_BLANKS and not text[:end].strip() and not last:
            end = 0  # blanks before a call are not shown
        shown.append(text[:end])
        self._begins = self._begins and not text[:end].strip()
        if not mark:
            self._held = text[end:]
            return ""
        behind = text[at + len(mark) :]
        within = behind.lstrip() if mark == HERMES else ""
        blanks = len(behind) - len(within)
        if mark == HERMES and blanks < MOST_BLANKS and not last and FUNCTION.startswith(within):
            self._held = text[at:]  # of which kind it is isn't known yet
            return ""
        if mark == FUNCTION:
            self._call = XmlCall(mark, self._schemas)
        elif within.startswith(FUNCTION):
            opening = mark + behind[:blanks] + FUNCTION
            self._call, behind = XmlCall(opening, self._schemas), within[len(FUNCTION) :]
        else:
            self._call = _Call(mark)
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

    def _read_call(self, call: "_Call | XmlCall", text: str, shown: list[str]) -> str:
        """Read on in a call; what is left of the text behind it."""
        rest = call.feed(text)
        if rest is None and not call.broken:
            return ""
        found = None if rest is None or call.broken else self._read(call)
        self._call = None
        if found is None:
            shown.append(call.text)
            self._begins = False
        else:
            self.calls.append(found)
            self._between = True
        return rest or ""

    def _read(self, call: "_Call | XmlCall") -> ToolCall | None:
        if isinstance(call, _Call):
            return call.read(self._names)
        bare = call.text.startswith(FUNCTION)  # without a mark around it
        return (
            None if bare and call.name not in self._names else _tool_call(call.name, call.arguments)
        )


class _Call:
    """What stands behind a mark, up to the end of a JSON object."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._before = ""  # the JSON
        self._pieces = list[str]()  # of the JSON
        self._size = 0
        self._depth, self._quoted, self._escaped = 0, False, False
        self.broken = False

    @property
    def text(self) -> str:
        """All that has been read, with the mark."""
        return self._mark + self._before + "".join(self._pieces)

    def feed(self, text: str) -> str | None:
        """What stands behind the end of the JSON; None where it has not ended, or is broken."""
        if not self._depth:
            before, brace, rest = (self._before + text).partition("{")
            self._before, text = before, brace + rest
            maybe = _MAYBE_NAME if self._mark == MISTRAL else _BEFORE
            if not (maybe.fullmatch(before) or (brace and _NAME.fullmatch(before))):
                self._pieces, self.broken = [text], True
            if self.broken or not brace:
                return None
        end = self._end(text)
        self._pieces.append(text if end is None else text[:end])
        self._size += len(self._pieces[-1])
        if self._size > MOST_CHARACTERS or (not self._mark and not self._maybe_call()):
            self.broken = True
        return None if end is None else text[end:]

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
                self.broken = self.broken or self._depth > MOST_DEPTH
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


def _tool_call(name: str, arguments: str, mark: str = "") -> ToolCall:
    """A call with an id; Mistral's templates take none but of nine letters and digits."""
    letters = "".join(secrets.choice(_LETTERS) for _ in range(9 if mark == MISTRAL else 24))
    return ToolCall(letters if mark == MISTRAL else f"call_{letters}", name, arguments)
