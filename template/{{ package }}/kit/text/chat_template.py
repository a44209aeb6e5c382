"""Chat templates as models publish them: messages to the prompt that a model was trained on.

A template is foreign code, and no thread can be ended in the middle of a loop: each is rendered in
a process of its own, bounded in time, memory and size (chat_template_process.py).
"""

import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

LOAD_SECONDS = 10.0  # to compile a template, and to learn what it writes
PROMPT_SECONDS = 2.0
MOST_CHARACTERS = 4 << 20  # of a template, and of what it writes

_CHILD = Path(__file__).with_name("chat_template_process.py")


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

    def render(
        self,
        messages: Sequence[dict[str, str]],
        special_tokens: dict[str, str],
        seconds: float = PROMPT_SECONDS,
    ) -> str:
        """The prompt, up to where the model's answer begins.

        special_tokens: bos_token, eos_token and their like. Raises jinja2.TemplateError where the
        template refuses or fails, and BoundError where it takes too much.
        """
        values = {
            "messages": [dict(message) for message in messages],
            "add_generation_prompt": True,
            "tools": None,
            "documents": None,
            **special_tokens,
        }
        asked = {"values": values, "most": MOST_CHARACTERS, "now": datetime.now().isoformat()}
        with self._lock:
            if self._process is None:
                self._start()
            return self._ask(asked, seconds)

    def _start(self) -> None:
        # -P: the folder of the script is not where modules are; ours have the names of others.
        command = [sys.executable, "-P", str(_CHILD)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        except OSError as error:
            raise TemplateError(f"the chat template's process can't be started: {error}") from error
        self._end = weakref.finalize(self, _ended, self._process)
        self._ask({"source": self._source}, LOAD_SECONDS)

    def _ask(self, asked: dict[str, Any], seconds: float) -> str:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        line = json.dumps(asked | {"seconds": max(seconds, 0.001)}).encode() + b"\n"
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
    """The template of a tokenizer_config.json. Raises jinja2.TemplateError."""
    return ChatTemplate(source)


def render(
    template: ChatTemplate,
    messages: Sequence[dict[str, str]],
    special_tokens: dict[str, str],
    seconds: float = PROMPT_SECONDS,
) -> str:
    """As ChatTemplate.render()."""
    return template.render(messages, special_tokens, seconds)
