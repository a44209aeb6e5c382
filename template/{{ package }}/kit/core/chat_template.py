"""Chat templates as models publish them: messages to the prompt that a model was trained on."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


def compiled(source: str) -> Template:
    """The template of a tokenizer_config.json. Raises jinja2.TemplateError."""
    return _environment().from_string(source)


def render(
    template: Template, messages: Sequence[dict[str, str]], special_tokens: dict[str, str]
) -> str:
    """The prompt, up to where the model's answer begins.

    special_tokens: bos_token, eos_token and their like. A template is foreign code: it raises
    jinja2.TemplateError where it refuses the conversation, and can fail in any other way.
    """
    return template.render(
        messages=[dict(message) for message in messages],
        add_generation_prompt=True,
        tools=None,
        documents=None,
        **special_tokens,
    )


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


def _strftime_now(form: str) -> str:
    """Let a template write today's date."""
    return datetime.now().strftime(form)


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
    environment.globals["strftime_now"] = _strftime_now
    environment.filters["tojson"] = _to_json
    return environment
