"""Qwen3-Coder's calls of tools, whose arguments are no JSON but typed by the tool's schema.

<tool_call><function=NAME><parameter=KEY>VALUE</parameter>...</function></tool_call>, with a line
break before and behind each value. A value becomes what vLLM's qwen3_coder parser makes of it.
"""

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from .json_text import decoded

FUNCTION = "<function="
MOST_CHARACTERS = 1 << 20  # of one call; a longer one is text
MOST_LITERAL = 1 << 16  # characters that are read as Python's own
_END, _CLOSE, _CLOSE_ALL, _PARAMETER = "</function>", "</parameter>", "</tool_call>", "<parameter="
_BEHIND = {_CLOSE: (_PARAMETER, _END, _CLOSE_ALL), _END: (_CLOSE_ALL,)}  # or it is in the value
_NAME = re.compile(r"\s*([\w.-]{1,128})\s*>")
_MAYBE_NAME = re.compile(r"\s{0,64}[\w.-]{0,128}\s{0,64}")
_KEY = re.compile(_PARAMETER + r"([^<>\n]{1,256})>")
_MAYBE_KEY = re.compile(_PARAMETER + r"[^<>\n]{0,256}")
_TEXTS = {"string", "str", "text", "varchar", "char", "enum"}
_WHOLE = ("int", "uint", "long", "short", "unsigned")

Schemas = Mapping[str, Mapping[str, Any]]  # by function: what each parameter is


class XmlCall:
    """What stands behind <function=, up to the end of the call; opening: that, and what was before.

    schemas: of the tools that the request has.
    """

    def __init__(self, opening: str, schemas: Schemas) -> None:
        self._schemas = schemas
        self._pieces = [opening]
        self.begin = len(opening)  # characters of its text that show that it may be a call
        self._size = 0
        self._held = ""  # that is not understood yet
        self._key: str | None = None  # whose value is being read
        self._value = list[str]()
        self._values = dict[str, str]()
        self.name = ""
        self.broken = False

    @property
    def text(self) -> str:
        """All that has been read, with the opening."""
        return "".join(self._pieces)

    def feed(self, text: str) -> str | None:
        """What stands behind the end of the call; None where it has not ended, or is broken."""
        self._pieces.append(text)
        self._size += len(text)
        self._held += text
        while not self.broken:
            if not self.name:
                more = self._read_name()
            elif self._key is not None:
                more = self._read_value(self._key)
            elif self._held.lstrip().startswith((_END, _CLOSE_ALL)):
                rest = self._held.lstrip().removeprefix(_END)
                self._pieces = [self.text[: len(self.text) - len(rest)]]
                return rest
            else:
                more = self._read_key()
            if not more:
                break
        self.broken = self.broken or self._size > MOST_CHARACTERS
        return None

    def _read_name(self) -> bool:
        if match := _NAME.match(self._held):
            self.name, self._held = match[1], self._held[match.end() :]
            return True
        self.broken = not _MAYBE_NAME.fullmatch(self._held)
        return False

    def _read_key(self) -> bool:
        held = self._held.lstrip()
        if match := _KEY.match(held):
            self._key, self._held = match[1].strip(), held[match.end() :]
            return True
        begun = any(mark.startswith(held) for mark in (_PARAMETER, _END, _CLOSE_ALL))
        self.broken = not (begun or _MAYBE_KEY.fullmatch(held)) or len(self._held) > 512
        return False

    def _read_value(self, key: str) -> bool:
        """Take what surely is in the value; whether it has ended."""
        held, at = self._held, self._held.find("<")
        while at >= 0:
            end = _end_of_value(held, at)
            if end is not None:
                self._value.append(held[:at])
                self._held = held[end:] if end else held[at:]
                if end:
                    value = "".join(self._value).removeprefix("\n").removesuffix("\n")
                    self._values[key], self._key, self._value = value, None, []
                return bool(end)
            at = held.find("<", at + 1)
        self._value.append(held)
        self._held = ""
        return False

    @property
    def arguments(self) -> str:
        """The JSON object that they are."""
        schema = self._schemas.get(self.name, {})
        members = (
            f"{json.dumps(key, ensure_ascii=False)}: {typed(value, schema.get(key))}"
            for key, value in self._values.items()
        )
        return "{" + ", ".join(members) + "}"


def _end_of_value(text: str, at: int) -> int | None:
    """What a "<" in a value is: where the next part begins, 0 if it may be, None if it is not.

    A mark that is not followed by what can follow it is of the value itself.
    """
    for mark, following in _BEHIND.items():
        if mark.startswith(text[at : at + len(mark)]) and len(text) - at < len(mark):
            return 0
        if text.startswith(mark, at):
            start = at + len(mark)
            behind = text[start : start + 96].lstrip()
            if behind.startswith(following):
                return start if mark == _CLOSE else at
            maybe = any(follower.startswith(behind) for follower in following)
            return 0 if maybe and len(text) - start < 64 else None
    return None


def typed(value: str, schema: Any) -> str:
    """A parameter's value as JSON, by its schema; a text where it is not of that type."""
    kind, nullable = _kind(schema)
    null = value.strip().lower() in ("null", "none")
    if null and (nullable or kind not in _TEXTS):
        return "null"
    if kind in _TEXTS:
        return _json(value)
    if kind in ("boolean", "bool", "binary"):
        return "true" if value.strip().lower() == "true" else "false"
    try:
        if kind.startswith(_WHOLE):
            return str(int(value))
        if kind.startswith(("num", "float")):
            number, whole = float(value), int(float(value))
            return str(whole) if whole == number else repr(number)
    except (ValueError, OverflowError):
        return _json(value)
    if isinstance(decoded(value), dict | list):
        return value.strip()
    return _literal(value)


def _kind(schema: Any) -> tuple[str, bool]:
    """The type that a schema names, the first but null, and whether null is one."""
    if not isinstance(schema, Mapping):
        return "string", False
    options = schema.get("type", schema.get("anyOf", schema.get("oneOf", "string")))
    options = options if isinstance(options, list) else [options]
    named = [o.get("type") if isinstance(o, Mapping) else o for o in options]
    kinds = [str(kind).strip().lower() for kind in named if kind is not None]
    return next((kind for kind in kinds if kind != "null"), "string"), "null" in kinds


def _literal(value: str) -> str:
    """A value that Python writes otherwise than JSON, such as {'a': True}."""
    if len(value) > MOST_LITERAL:
        return _json(value)
    try:
        return _json(ast.literal_eval(value.strip()))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
