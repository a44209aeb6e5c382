"""A choice of OpenAI's API, streamed or whole, in the shapes that servers give it."""

import json
from secrets import token_hex
from typing import Any

from ..contract import Finish, ToolCall
from .client import LINE, ServerError, words
from .events import BrokenOffError, Event, number, part, parts, text

_THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
_SAID = ("content", "refusal", "text")
_BROKEN = {"abort", "aborted", "cancelled", "canceled", "content_filter", "error", "timeout"}
_LENGTH = {"length", "limit", "max_length", "max_new_tokens", "max_tokens", "model_length"}
_CALLS = {"function_call", "tool_calls", "tool_use"}
_DEPTH = 4  # of parts within parts
_MOST_CALLS = 128  # of tools, in one answer


def spoken(choice: Event) -> tuple[str, str]:
    """The reasoning and the text of a choice; content may be a text, or a list of parts."""
    message = part(choice, "delta") or part(choice, "message") or choice
    reasoning, content = "", ""
    if not message.keys().isdisjoint(_THOUGHTS):
        reasoning = next((t for key in _THOUGHTS if (t := _joined(message.get(key)))), "")
    for key in _SAID:
        if value := message.get(key):
            text, within = _split(value)
            content, reasoning = content + text, reasoning + within
    return reasoning, content


def _split(value: Any) -> tuple[str, str]:
    """The text and the reasoning of a content. Raises BrokenOffError where no text can hold it."""
    if isinstance(value, str):
        return value, ""
    content, reasoning = "", ""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            content += item
        elif isinstance(item, dict):
            kind = str(item.get("type", "text"))
            text = _joined(item)
            if kind in ("thinking", "reasoning"):
                reasoning += text
            elif text or kind == "text":
                content += text
            else:
                raise BrokenOffError(f"it sent {kind!r}, which is no text")
    return content, reasoning


def _joined(value: Any, depth: int = 0) -> str:
    """The texts of parts, in order."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and depth < _DEPTH:
        return "".join(_joined(item, depth + 1) for item in value)
    if not isinstance(value, dict) or depth >= _DEPTH:
        return ""
    keys = ("text", "content", "thinking", "reasoning", "summary", "refusal", "value")
    return next((t for key in keys if (t := _joined(value.get(key), depth + 1))), "")


def finish_of(choice: Event) -> Finish | None:
    """Why a choice ended, if it did. Raises BrokenOffError where that was no end of its own."""
    if error := choice.get("error"):
        raise BrokenOffError(words({"error": error}))
    reason = choice.get("finish_reason")
    if isinstance(reason, dict):  # SGLang's own route
        reason = _reason(reason)
    if not reason:
        return None
    reason = str(reason).lower()
    if reason in _BROKEN:
        raise BrokenOffError(f"it ended with {reason!r}; see its log")
    if reason in _CALLS:
        return "tool_calls"
    return "length" if reason in _LENGTH else "stop"


def _reason(reason: Event) -> Any:
    kind = reason.get("type")
    if kind in _BROKEN and reason.get("message"):
        raise BrokenOffError(words(reason))
    return kind


class Calls:
    """The tool calls of one answer, whose fragments of arguments are joined."""

    def __init__(self) -> None:
        self._calls = dict[int, list[str]]()  # by the server's index: id, name, arguments
        self._bytes = 0

    def feed(self, choice: Event) -> None:
        """Take a choice's fragments. Raises ServerError where they are too many."""
        message = part(choice, "delta") or part(choice, "message")
        for at, call in enumerate(parts(message, "tool_calls")):
            index = number(call.get("index"))
            function, key = part(call, "function"), at if index is None else index
            arguments = function.get("arguments")
            if isinstance(arguments, dict):  # Ollama's own
                arguments = json.dumps(arguments, ensure_ascii=False)
            known = self._calls.setdefault(key, ["", "", ""])
            known[0] = known[0] or text(call, "id")
            known[1] = known[1] or text(function, "name")
            known[2] += arguments if isinstance(arguments, str) else ""
            self._bytes += len(known[1]) + len(arguments or "")
        if len(self._calls) > _MOST_CALLS or self._bytes > LINE:
            raise ServerError("the server's tool calls are too many, or too long")

    def whole(self) -> tuple[ToolCall, ...]:
        """The calls, in the server's order; one that has no id gets one."""
        whole = (
            ToolCall(call or f"call_{token_hex(12)}", name, arguments or "{}")
            for _, (call, name, arguments) in sorted(self._calls.items())
            if name
        )
        return tuple(whole)
