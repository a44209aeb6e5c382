"""A process of its own that renders a chat template, line by line of JSON, within bounds.

It ends itself where a template takes too long: nothing else stops a loop, a regular expression or
one multiplication of huge numbers. It is started by chat_template.py and imports nothing of ours.
"""

import faulthandler
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY = 512 << 20  # bytes; Python and Jinja take a tenth of it


class _TooLongError(Exception):
    """A template writes without an end."""


class _Generation(Extension):
    """The `{% generation %}` block of Hugging Face templates: its body is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Drop the two tags and keep what is between them."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> NoReturn:
    """Let a template refuse a conversation."""
    raise TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON as chat templates expect it: Jinja's own filter would escape it for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _environment() -> ImmutableSandboxedEnvironment:
    """Make the environment that chat templates are written for."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.globals["raise_exception"] = _raise_exception
    environment.filters["tojson"] = _to_json
    return environment


def _strftime(now: str) -> Callable[[str], str]:
    """Let a template write today's date."""
    return datetime.fromisoformat(now).strftime


class _Renderer:
    """One template; it is compiled by the first line."""

    def __init__(self) -> None:
        self._environment = _environment()
        self._template: Template | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, str]:
        """The prompt, or why there is none. A template can fail in any way."""
        try:
            if "source" in request:
                self._template = self._environment.from_string(request["source"])
                return {"text": ""}
            return {"text": self._rendered(request)}
        except _TooLongError as error:
            return {"bound": str(error)}
        except MemoryError:
            return {"bound": f"takes more than {MEMORY >> 20} MB of memory"}
        except Exception as error:
            return {"refused": str(error)[:1000] or type(error).__name__}

    def _rendered(self, request: dict[str, Any]) -> str:
        assert self._template is not None
        pieces, left = [], request["most"]
        values = request["values"] | {"strftime_now": _strftime(request["now"])}
        for piece in self._template.generate(**values):
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                raise _TooLongError(f"writes more than {request['most']} characters")
        return "".join(pieces)


def _bound_memory() -> None:
    """Where the system can; Windows can't."""
    if sys.platform != "win32":
        import resource

        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def main() -> None:
    """Answer until the parent is gone."""
    _bound_memory()
    renderer = _Renderer()
    with open(os.devnull, "w", encoding="utf-8") as nowhere, suppress(BrokenPipeError):
        for line in sys.stdin.buffer:
            request = json.loads(line)
            # A thread of C code, which ends the process whatever Python is doing.
            faulthandler.dump_traceback_later(request["seconds"], exit=True, file=nowhere)
            answer = json.dumps(renderer.answer(request)).encode()
            faulthandler.cancel_dump_traceback_later()
            sys.stdout.buffer.write(answer + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
