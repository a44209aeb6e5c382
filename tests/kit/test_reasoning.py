"""Reasoning told apart: of six models' formats, cut anywhere, and counted."""

import pytest

from exo_kit.kit.contract import Request, ToolCall
from exo_kit.kit.text.answer_parser import AnswerParser
from exo_kit.kit.text.reasoning import LONGEST_HEADER, ReasoningParser

GPT = "<|channel|>analysis<|message|>Hm < 5.<|end|><|start|>assistant"
# The end of the prompt, what the model writes, its reasoning, its answer.
FORMATS = {
    "qwen3": ("assistant\n", "<think>\nHm.\n</think>\n\nYes.", "Hm.\n", "Yes."),
    "qwen3 without": ("assistant\n<think>\n\n</think>\n\n", "Yes.", "", "Yes."),
    "qwen3 empty": ("assistant\n", "<think>\n\n</think>\n\nYes.", "", "Yes."),
    "qwen3 2507, deepseek-r1": ("assistant\n<think>\n", "Hm.\n</think>\n\nYes.", "Hm.\n", "Yes."),
    "magistral": ("[/INST]", "[THINK]Hm [5].[/THINK]Yes.", "Hm [5].", "Yes."),
    "seed-oss": ("assistant\n", "<seed:think>Hm.</seed:think>Yes.", "Hm.", "Yes."),
    "kimi": ("assistant", "\u25c1think\u25b7Hm.\u25c1/think\u25b7Yes.", "Hm.", "Yes."),
    "gpt-oss": ("<|start|>assistant", f"{GPT}<|channel|>final<|message|>Yes.", "Hm < 5.", "Yes."),
    "gpt-oss, a preamble": (
        "<|start|>assistant",
        "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|message|>Yes.<|return|>",
        "Hm.",
        "I look.Yes.",
    ),
    "cut while it reasons": ("", "<think>Hm. </thi", "Hm. </thi", ""),
    "cut in a header": ("", "<|channel|>analysis<|message|>Hm.<|end|><|start|>assis", "Hm.", ""),
    "no reasoning": ("", "Yes: <think> begins it, </think> ends it.", "", None),
    "half a mark": ("", " <thin", "", None),
    "blanks": ("", "\n\n  Yes.", "", None),
    "a later mark": ("", "<think>a</think>b <think>c</think>", "a", "b <think>c</think>"),
}


def read(prompt, pieces, tools=None):
    """The reasoning, the text and the parser of an answer."""
    parser = AnswerParser(Request("a", prompt, (), 9, tools=tools))
    parts = [part for piece in pieces for part in parser.feed(piece, 1, False, False)]
    parts += parser.feed("", 0, False, True)
    assert all(text for text, _ in parts)
    return *("".join(text for text, inside in parts if inside is b) for b in (True, False)), parser


@pytest.mark.parametrize(("prompt", "text", "reasoning", "answer"), FORMATS.values(), ids=FORMATS)
def test_reasoning_is_told_apart_wherever_it_is_cut(prompt, text, reasoning, answer):
    expected = reasoning, text if answer is None else answer
    assert read(prompt, [text])[:2] == expected
    assert read(prompt, text)[:2] == expected
    for cut in range(1, len(text)):
        assert read(prompt, [text[:cut], text[cut:]])[:2] == expected


@pytest.mark.parametrize("text", ["<think>Hm.</think>Yes.", GPT + "<|channel|>final<|message|>Yes"])
def test_reasoning_streams(text):
    parser = AnswerParser(Request("a", "", (), 9))
    seen = [parser.feed(letter, 1, False, False) for letter in text]
    assert [parts for parts in seen if parts][:2] == [[("H", True)], [("m", True)]]
    assert [parts for parts in seen if parts and not parts[0][1]][:3] == [
        [("Y", False)],
        [("e", False)],
        [("s", False)],
    ]


@pytest.mark.parametrize(
    ("prompt", "pieces", "tokens"),
    [
        ("", ["<think>", "\n", "Hm", ".", "</think>", "\n\n", "Yes"], 5),
        ("", ["<", "think", ">", "Hm", "</", "think", ">", "Yes", "."], 7),
        ("<think>\n", ["Hm", ".", "</think>", "Yes"], 3),
        ("", ["Yes", " ", "<think>"], 0),
        ("", ["<", "b", "Yes"], 0),
        ("", ["<think>", "cut"], 2),
        ("", ["<|channel|>", "analysis", "<|message|>", "Hm", ".", "<|end|>", "<|start|>"], 4),
    ],
)
def test_the_tokens_of_reasoning_are_counted(prompt, pieces, tokens):
    assert read(prompt, pieces)[2].reasoning_tokens == tokens


def test_what_a_device_tells_apart_is_taken_as_it_is():
    parser = AnswerParser(Request("a", "<think>\n", (), 9))
    assert parser.feed("Hm </think>", 3, True, False) == [("Hm </think>", True)]
    assert parser.feed("Yes <think>.", 2, False, False) == [("Yes <think>.", False)]
    assert parser.feed("", 0, False, True) == []
    assert parser.reasoning_tokens == 3


def test_calls_are_read_behind_reasoning_and_not_in_it():
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    tools = [{"type": "function", "function": {"name": "f"}}]
    text = f"<think>{call}</think>\n\n{call}"
    for pieces in ([text], text):
        reasoning, answer, parser = read("", pieces, tools)
        assert (reasoning, answer) == (call, "")
        assert [(c.name, c.arguments) for c in parser.calls] == [("f", "{}")]
    assert read("", [text])[1] == call  # without tools it is text


def test_a_message_to_a_function_is_a_call():
    text = GPT + (
        '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>'
    )
    reasoning, answer, parser = read("", text, [{"type": "function", "name": "f"}])
    assert (reasoning, answer) == ("Hm < 5.", "")
    [call] = parser.calls
    assert call == ToolCall(call.id, "f", '{"a": 1}')


@pytest.mark.parametrize(
    "text",
    ["\n" * 100_000, "<think>" + "<" * 100_000, "<|channel|>" + "a" * 100_000],
    ids=["blanks", "halves", "header"],
)
def test_a_hostile_text_is_bounded(text):
    reasoning, answer, _ = read("", [text[n : n + 5] for n in range(0, len(text), 5)])
    assert len(reasoning + answer) >= 100_000 - LONGEST_HEADER


def test_a_header_ends_in_time_however_it_is_cut():
    """A fuzzer's: without that, what is shown depended on how a server cuts its pieces."""
    for size in (LONGEST_HEADER - 20, LONGEST_HEADER + 20):
        text = "<|channel|>final" + "9" * size + "<|message|>so"
        texts = []
        for pieces in ([text], list(text)):
            parser = ReasoningParser("")
            parts = [part for piece in pieces for part in parser.feed(piece)]
            texts.append("".join(part.text for part in [*parts, *parser.feed("", last=True)]))
        assert texts[0] == texts[1]
        assert texts[0].endswith("so")
