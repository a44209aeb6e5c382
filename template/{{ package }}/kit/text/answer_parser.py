"""Reasoning, text and calls of tools, read out of the one text that a model writes."""

from typing import Any

from ..contract import Request, ToolCall
from .reasoning import ReasoningParser
from .tool_calls import ToolCallParser


class AnswerParser:
    """One answer's; its calls are read where the request has tools."""

    def __init__(self, request: Request) -> None:
        self._reasoning = ReasoningParser(request.prompt)
        functions = [tool.get("function", tool) for tool in request.tools or ()]
        schemas = {str(each.get("name")): _properties(each) for each in functions}
        self._tools = ToolCallParser(schemas, schemas) if request.tools else None
        self._undecided = 0  # tokens of what may be a mark
        self.reasoning_tokens = 0  # with the marks

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls so far."""
        return tuple(self._tools.calls) if self._tools is not None else ()

    def feed(self, text: str, tokens: int, thinking: bool, last: bool) -> list[tuple[str, bool]]:
        """What is to be shown of one more text, and whether that is reasoning.

        tokens: that it was made of. thinking: the device says that it is reasoning. last: nothing
        follows.
        """
        if thinking:
            self._reasoning.skip()
            self.reasoning_tokens += tokens
            runs = [(text, True)] if text else []
            return runs + ([(rest, False)] if last and (rest := self._rest()) else [])
        inside = self._reasoning.inside
        parts = self._reasoning.feed(text, last)
        inside = inside or self._reasoning.inside or any(part.thinking for part in parts)
        self._count(tokens, inside)
        runs = []
        for part in parts:
            seen = part.text if self._tools is None or part.thinking else self._tools.feed(part)
            runs.append((seen, part.thinking))
        if last:
            runs.append((self._rest(), False))
        return [(seen, inside) for seen, inside in runs if seen]

    def _rest(self) -> str:
        return self._tools.rest() if self._tools is not None else ""

    def _count(self, tokens: int, inside: bool) -> None:
        if self._reasoning.undecided:
            self._undecided += tokens
            return
        if inside:
            self.reasoning_tokens += self._undecided + tokens
        self._undecided = 0


def _properties(function: dict[str, Any]) -> dict[str, Any]:
    """The schemas of a function's parameters; a client may leave them out, or send anything."""
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, dict) else None
    return properties if isinstance(properties, dict) else {}
