"""A backend.py whose device says what the last message asks for: a call as a family writes it."""

from pathlib import Path
from typing import Any

import numpy as np

ARGUMENTS = '{"city": "S\u00e3o \\"P\\"aulo", "days": [1, 2.50], "note": "a}b</x>"}'
CALL = '{"name": "weather", "arguments": ' + ARGUMENTS + "}"
ANSWERS = {
    "hermes": f"I look.\n<tool_call>\n{CALL}\n</tool_call>",
    "twice": f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{CALL}\n</tool_call>",
    "llama": CALL.replace('"arguments"', '"parameters"'),
    "mistral": f"[TOOL_CALLS][{CALL}]",
    "coder": (
        '<tool_call>\n<function=weather>\n<parameter=city>\nS\u00e3o "P"aulo\n</parameter>\n'
        "<parameter=days>\n[1, 2.50]\n</parameter>\n<parameter=note>\na}b</x>\n</parameter>\n"
        "</function>\n</tool_call>"
    ),
    "broken": "<tool_call>\n{broken</tool_call>",
}
TEMPLATE = (
    "{% if tools %}TOOLS {{ tools | tojson }}\n{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}CALL {{ c.function.arguments.city }}{% endfor %}|"
    "{% endfor %}{% if add_generation_prompt %}<assistant>"
    "{% if enable_thinking is defined and enable_thinking %}<think>\n{% endif %}{% endif %}"
)


class Backend:
    """Its logits leave no choice."""

    contract = 1
    whole_model = True
    files = ("*.json",)

    def __init__(self) -> None:
        self._tokenizer: Any = None
        self._left: dict[str, list[int]] = {}  # ids, by request

    def load(self, layers: Any, folder: Path, tokenizer: Any) -> None:
        """Keep the tokenizer."""
        self._tokenizer = tokenizer

    def step(self, request_id: str, x: Any) -> Any:
        """The next id of the answer."""
        if request_id not in self._left:
            text = answer(self._tokenizer.decode(x[0]))
            ids = self._tokenizer.encode(text)
            self._left[request_id] = [*ids, self._tokenizer.eos_token_id]
        vocabulary = self._tokenizer.fast.get_vocab_size()
        logits = np.zeros((1, 1, vocabulary), dtype=np.float32)
        logits[0, 0, self._left[request_id].pop(0)] = 60
        return logits

    def forget(self, request_id: str) -> None:
        """Drop what is left to say."""
        self._left.pop(request_id, None)

    def close(self) -> None:
        """Nothing is held."""

    def check(self) -> str:
        """One line."""
        return "forced"


def answer(prompt: str) -> str:
    """To a tool's result that it is done, else what the user's last word asks for."""
    if "<tool>" in prompt:
        return "Done: " + prompt.rpartition("<tool>")[2].partition("|")[0]
    word = prompt.rpartition("<user>")[2].partition("|")[0]
    text = ANSWERS.get(word, "Hello.")
    return f"Let me think.\n</think>\n\n{text}" if prompt.endswith("<think>\n") else text
