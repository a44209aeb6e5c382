"""Bytes to a model's text with marks in it: calls and reasoning are the same however it is cut."""

import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from checkpoint import Bytes

PIECES = (
    "<function=weather>", "<parameter=city>", "</parameter>", "</function>", "<function=",
    "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>",
    '{"name": "weather", "arguments": {"city": "P"}}', '{"name": "weather", "parameters": {}}',
    "<think>", "</think>", "\n", " ", ";", ",", "[", "]", "{", "}", '"', "\\", '"name": ', "a",
    "<|channel|>analysis<|message|>", "<|end|>", "<|start|>assistant", "<|channel|>commentary",
    " to=functions.weather", "<|constrain|>json", "<|message|>", "<|call|>", "<|return|>",
    "<|channel|>final<|message|>", "\ud800", "\u0130", "1e999", "NaN", "9" * 200, "{" * 120,
    '"arguments": ', '"x" * 70', "<tool", "_call>", "[/TOOL_CALLS]", "\x00", "weather", " " * 70,
)  # fmt: skip
PROMPTS = ("", "<think>\n", "<|start|>assistant", "x <think></think>")


def attack_in(folder: Path, package: str) -> Callable[[bytes], None]:
    """Function of a fuzzer's bytes; a text of a kilobyte takes no second."""
    contract = import_module(f"{package}.kit.contract")
    parser = import_module(f"{package}.kit.text.answer_parser")
    tools = [{"type": "function", "function": {"name": "weather"}}]

    def read(prompt: str, pieces: list[str], with_tools: bool) -> tuple[str, str, list[tuple]]:
        fields = {"tools": tools} if with_tools else {}
        request = contract.Request("r", prompt, (1,), 8, **fields)
        answer, output = parser.AnswerParser(request), []
        for n, piece in enumerate(pieces):
            output += answer.feed(piece, 1, False, n == len(pieces) - 1)
        calls = [(call.name, call.arguments) for call in answer.calls]
        assert 0 <= answer.reasoning_tokens <= len(pieces)
        text = "".join(text for text, thinking in output if not thinking)
        return text, "".join(text for text, thinking in output if thinking), calls

    def attack(data: bytes) -> None:
        choice = Bytes(data)
        prompt, with_tools = PROMPTS[choice.below(len(PROMPTS))], bool(choice.below(4))
        text = "".join(PIECES[choice.below(len(PIECES))] for _ in range(choice.below(24)))
        cuts = sorted({choice.below(len(text) + 1) for _ in range(choice.below(9))})
        places = zip([0, *cuts], [*cuts, len(text)], strict=True)
        start = time.process_time()
        whole = read(prompt, [text], with_tools)
        assert read(prompt, [text[a:b] for a, b in places], with_tools) == whole
        assert read(prompt, [*text, ""], with_tools) == whole
        assert time.process_time() - start < 5.0

    return attack
