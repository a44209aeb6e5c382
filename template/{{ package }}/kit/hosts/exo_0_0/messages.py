"""A request's messages, as its client sent them.

exo 0.0 renders them before an engine sees the request, and its own Message drops tool calls and
names. Read back out of a prompt, a mark in a user's text would be a message of its own.
"""

from typing import Any

from ...contract import Messages
from ...text.chat_template import TemplateError, compiled, render
from ...text.tokenizer import Tokenizer

_SENTINEL = "Zq7sentinelXw"  # a word that no template writes


def as_sent(chat_request: Any, body: Any) -> Messages | None:
    """The conversation of a chat completion: exo's --system-prompt, and what the client sent.

    chat_request: exo's ChatCompletionRequest; body: the request's JSON. None where it has tools:
    ids bring no tool call back, and exo's prompt describes the tools to the model.
    """
    if chat_request.tools:
        return None
    sent: Messages = [dict(message) for message in body["messages"]]
    before = len(chat_request.messages) - len(sent)
    return [message.to_dict() for message in chat_request.messages[:before]] + sent


def of_command(prompt: str, tokenizer: Tokenizer) -> Messages | None:
    """The user's message in a prompt of `exo run`: what stands in one rendering's frame.

    None where the template makes other prompts. It renders: use a thread.
    """
    try:
        before, mark, after = _rendered(_SENTINEL, tokenizer).partition(_SENTINEL)
        content = prompt.removeprefix(before).removesuffix(after)
        if not mark or _rendered(content, tokenizer) != prompt:
            return None
    except TemplateError:
        return None
    return [{"role": "user", "content": content}]


def _rendered(content: str, tokenizer: Tokenizer) -> str:
    """The prompt of one user message. Raises TemplateError."""
    template = compiled(tokenizer.chat_template or "")
    return render(template, [{"role": "user", "content": content}], tokenizer.special_tokens)
