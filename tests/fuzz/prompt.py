"""Bytes to chat templates and prompts: the user's message is found, or the prompt stays whole."""

import json
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from checkpoint import Bytes

LITERALS = (
    "<|im_start|>", "<|im_end|>\n", "[INST]", "[/INST]", "\n", " ", "(", ".*", "\\", "Zq0wordX",
    "\x00",
    "\ud800", "\u0130", "\ufb03", "{", "}}", "user", "",
)  # fmt: skip
PIECES = (
    *LITERALS, "{{ m.role }}", "{{ m.content }}", "{{ m['content'] | trim }}", "{{ bos_token }}",
    "{{ messages[0].content }}", "{{ raise_exception('no') }}", "{{ m.content * 3 }}",
    "{{ m | tojson }}",
    "{% set ns.x = ns.x ~ m.content %}", "{{ ns.x }}", "{{ f(1) }}", "{{ m.content | upper }}",
    "{{ strftime_now('%d %b %Y') }}", "{{ m.content.split('x')[0] }}",
    "{{ m['content'] }}{% break %}",
)  # fmt: skip
BLOCKS = (
    "{% for m in messages %}@{% endfor %}", "{% for m in messages[1:] %}@{% endfor %}",
    "{% if m.role == 'user' %}@{% else %}@{% endif %}", "{% if m.role == 'system' %}@{% endif %}",
    "{% if loop.first %}@{% endif %}", "{% if add_generation_prompt %}@{% endif %}",
    "{% generation %}@{% endgeneration %}", "{% macro f(n) %}@{% endmacro %}@",
    "{% set ns = namespace(x='') %}@", "{% for i in range(3) %}@{% endfor %}", "@@", "@@",
)  # fmt: skip


def written(choice: Bytes, depth: int = 0) -> str:
    """A template whose blocks end."""
    if depth > 5 or not choice.left() or not choice.below(4):
        return PIECES[choice.below(len(PIECES))]
    first, *rest = BLOCKS[choice.below(len(BLOCKS))].split("@")
    return first + "".join(written(choice, depth + 1) + part for part in rest)


USUAL = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def attack_in(folder: Path, package: str) -> Callable[[bytes], None]:
    """Function of a fuzzer's bytes: a message found in a prompt renders to that prompt again.

    Templates are rendered in this process: starting one for each takes a hundred times as long, and
    tests/kit/test_chat_template.py has what has no end.
    """
    messages = import_module(f"{package}.kit.hosts.exo_0_0.messages")
    template = import_module(f"{package}.kit.text.chat_template")
    child = import_module(f"{package}.kit.text.chat_template_process")
    special = {"bos_token": "<s>"}

    class Here(template.ChatTemplate):
        def _start(self) -> None:
            self._process, self._renderer = self, child._Renderer()
            self._ask({"source": self._source}, 1.0)

        def _ask(self, request: dict[str, Any], seconds: float) -> str:
            # As its process gets it and answers it.
            answer = self._renderer.answer(json.loads(json.dumps(request)))
            answer = json.loads(json.dumps(answer))
            if "text" not in answer:
                kind = template.BoundError if "bound" in answer else template.TemplateError
                raise kind(next(iter(answer.values())))
            return answer["text"]

    template.ChatTemplate = Here

    def rendered(source: str, conversation: list[dict[str, str]]) -> str | None:
        with suppress(template.TemplateError):
            return str(template.render(template.compiled(source), conversation, special))
        return None

    def attack(data: bytes) -> None:
        choice = Bytes(data)
        prompt = "".join(LITERALS[choice.below(len(LITERALS))] for _ in range(choice.below(12)))
        source = (USUAL if choice.below(2) else "") + written(choice)
        tokenizer = SimpleNamespace(chat_template=source, special_tokens=special)
        for one in (prompt, rendered(source, [{"role": "user", "content": prompt}])):
            if one is not None and (read := messages.of_command(one, tokenizer)) is not None:
                assert [message["role"] for message in read] == ["user"]
                assert rendered(source, read) == one

    return attack
