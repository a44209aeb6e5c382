"""Chat templates as models publish them: messages to the prompt that a model was trained on.

A template is foreign code, and no thread can be ended in the middle of a loop: each is rendered in
a process of its own, bounded in time, memory and size (chat_template_process.py).
"""

import json
import subprocess
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from .child import command, environment

LOAD_SECONDS = 10.0  # to compile a template, and to learn what it writes
PROMPT_SECONDS = 2.0
MOST_CHARACTERS = 4 << 20  # of a template, and of what it writes

_HERE = "CONTINUE-FROM-HERE "  # with a blank: a template that trims cuts it off

_CHILD = Path(__file__).with_name("chat_template_process.py")


class TemplateError(Exception):
    """A template refuses a conversation, or fails; the text says why."""


class BoundError(TemplateError):
    """A template took more than it may; another conversation would too."""


class ChatTemplate:
    """The template of a tokenizer_config.json. Any thread may render; one at a time does."""

    def __init__(self, source: str) -> None:
        if len(source) > MOST_CHARACTERS:
            raise BoundError(f"the chat template has {len(source)} characters; no model's has")
        self._source = source
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[Any, Any] | None = None
        with self._lock:
            self._start()

    @property
    def takes_tools(self) -> bool:
        """Whether it writes the tools of a request at all."""
        return "tools" in self._source

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        special_tokens: dict[str, str],
        seconds: float = PROMPT_SECONDS,
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        enable_thinking: bool | None = None,
        reasoning_effort: str | None = None,
        continue_final_message: bool = False,
    ) -> str:
        """The prompt, up to where the model's answer begins, or goes on.

        messages, tools: as OpenAI's API has them. special_tokens: bos_token, eos_token and their
        like. The options are those of transformers' apply_chat_template(); what is None is not
        defined in the template. Raises TemplateError where the template refuses or fails, or
        takes no tools and is given some, and BoundError where it takes too much.
        """
        if tools and not self.takes_tools:
            raise TemplateError("it takes no tools: send the request without, or to another model")
        plain = [_plain(message) for message in messages]
        if continue_final_message:
            plain[-1:] = [_marked(message) for message in plain[-1:]]
        values = {
            "messages": plain,
            "add_generation_prompt": not continue_final_message,
            "tools": tools or None,
            "documents": None,
            **_thinking(enable_thinking, reasoning_effort),
            **special_tokens,
        }
        text = self._render(values, seconds)
        return _cut(text) if continue_final_message else text

    def _render(self, values: dict[str, Any], seconds: float) -> str:
        request = {"values": values, "most": MOST_CHARACTERS, "now": datetime.now().isoformat()}
        with self._lock:
            if self._process is None:
                self._start()
            return self._ask(request, seconds)

    def _start(self) -> None:
        try:
            self._process = subprocess.Popen(
                command(_CHILD),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment(),
            )
        except OSError as error:
            raise TemplateError(f"the chat template's process can't be started: {error}") from error
        self._end = weakref.finalize(self, _ended, self._process)
        self._ask({"source": self._source}, LOAD_SECONDS)

    def _ask(self, request: dict[str, Any], seconds: float) -> str:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        line = json.dumps(request | {"seconds": max(seconds, 0.001)}).encode() + b"\n"
        answer: dict[str, str] = {}
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(line)
                process.stdin.flush()
            answer = json.loads(process.stdout.readline() or b"{}")
        finally:
            if "text" not in answer and "refused" not in answer:
                self._stop()  # an interrupted one would answer the next question
        if "refused" in answer:
            raise TemplateError(answer["refused"])
        if "text" not in answer:
            why = answer.get("bound", f"takes longer than {seconds:.1f} s")
            raise BoundError(f"the chat template {why}")
        return answer["text"]

    def _stop(self) -> None:
        if self._end is not None:
            self._end()
        self._process = self._end = None


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """A message as templates read it.

    The arguments of a tool call, a JSON text in OpenAI's API, are the object; reasoning has both
    names, as transformers gives it.
    """
    plain = dict(message)
    reasoning = plain.get("reasoning_content") or plain.get("thinking")
    if isinstance(reasoning, str):
        plain = {"thinking": reasoning, **plain, "reasoning_content": reasoning}
    if isinstance(calls := plain.get("tool_calls"), list):
        plain["tool_calls"] = [_plain_call(call) for call in calls]
    return plain


def _plain_call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except (ValueError, RecursionError):
        return call  # a template can still write it as it is
    return {**call, "function": {**function, "arguments": arguments}}


def _thinking(enable: bool | None, effort: str | None) -> dict[str, Any]:
    """What templates call it: Qwen and GLM the first, DeepSeek and Granite the second, gpt-oss."""
    values: dict[str, Any] = {}
    if enable is not None:
        values |= {"enable_thinking": enable, "thinking": enable}
    if effort is not None:
        values["reasoning_effort"] = effort
    return values


def _marked(message: dict[str, Any]) -> dict[str, Any]:
    """A last message with a mark behind what the model is to go on with."""
    if not isinstance(message.get("content"), str):
        raise TemplateError("the last message has no text to go on with")
    return {**message, "content": message["content"] + _HERE}


def _cut(text: str) -> str:
    """A prompt up to the mark; where the template trims its messages, without blanks before it."""
    before, mark, after = text.rpartition(_HERE.strip())
    if not mark:
        raise TemplateError("it leaves out the end of the last message, which can't go on")
    return before if after.startswith(" ") else before.rstrip()


def _ended(process: "subprocess.Popen[bytes]") -> None:
    """End a process and give its pipes back."""
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    process.wait()


@lru_cache(maxsize=1)  # a process each: a node has one model at a time
def compiled(source: str) -> ChatTemplate:
    """The template of a tokenizer_config.json. Raises TemplateError."""
    return ChatTemplate(source)


def render(
    template: ChatTemplate,
    messages: Sequence[dict[str, Any]],
    special_tokens: dict[str, str],
    seconds: float = PROMPT_SECONDS,
    **options: Any,
) -> str:
    """As ChatTemplate.render()."""
    return template.render(messages, special_tokens, seconds, **options)
