"""Calls of tools in a model's text: every family's, cut anywhere; half a mark is never shown."""

import json
import re
import time

import pytest

from exo_kit.kit.contract import Request
from exo_kit.kit.text.answer_parser import AnswerParser
from exo_kit.kit.text.reasoning import Part
from exo_kit.kit.text.tool_calls import MOST_CHARACTERS, ToolCallParser
from exo_kit.kit.text.xml_calls import typed

ODD = '{"city": "S\\u00e3o \\"P\\"aulo } </tool_call>", "n": 1.50, "deep": {"a": [{}, "]"]}}'
ONE = '{"name": "weather", "arguments": ' + ODD + "}"
LLAMA = '{"name": "weather", "parameters": ' + ODD + "}"
V11 = "[TOOL_CALLS]weather[ARGS]"
TWO = [("weather", ODD), ("weather", ODD)]
XML = (
    '<function=weather>\n<parameter=city>\nS\u00e3o <b>\n"P"</parameter> }\n</parameter>\n'
    "<parameter=n>\n3\n</parameter>\n</function>"
)
TYPED = ("weather", '{"city": "S\u00e3o <b>\\n\\"P\\"</parameter> }", "n": 3}')
SCHEMAS = {"weather": {"city": {"type": "string"}, "n": {"type": "integer"}}}
FAMILIES = {
    "hermes": (f"<tool_call>\n{ONE}\n</tool_call>", "", TWO[:1]),
    "hermes, text before": (f"Let me see.\n<tool_call>{ONE}</tool_call>", "Let me see.\n", TWO[:1]),
    "hermes, two": (f"<tool_call>\n{ONE}\n</tool_call>\n<tool_call>\n{ONE}\n</tool_call>", "", TWO),
    "hermes, not closed": (f"<tool_call>\n{ONE}", "", TWO[:1]),
    "hermes, text behind": (f"<tool_call>{ONE}</tool_call>\nso", "so", TWO[:1]),
    "llama": (LLAMA, "", TWO[:1]),
    "llama, blanks": (f"\n\n{LLAMA}", "", TWO[:1]),
    "llama, two": (f"{LLAMA}; {LLAMA}", "", TWO),
    "llama, python tag": (f"<|python_tag|>{LLAMA}", "", TWO[:1]),
    "llama, type first": ('{"type": "function", ' + LLAMA[1:], "", TWO[:1]),
    "llama, function": (LLAMA.replace('"name"', '"function"'), "", TWO[:1]),
    "qwen coder": (f"<tool_call>\n{XML}\n</tool_call>", "", [TYPED]),
    "qwen coder, text before": (f"I look.\n<tool_call>{XML}</tool_call>", "I look.\n", [TYPED]),
    "qwen coder, two": (f"<tool_call>\n{XML}\n</tool_call>\n" * 2, "", [TYPED, TYPED]),
    "qwen coder, bare": (XML, "", [TYPED]),
    "qwen coder, not closed": (XML.removesuffix("</function>") + "</tool_call>", "", [TYPED]),
    "qwen coder, no parameters": (
        "<tool_call><function=now></function></tool_call>so",
        "so",
        [("now", "{}")],
    ),
    "mistral": (f"[TOOL_CALLS][{ONE}]", "", TWO[:1]),
    "mistral, two": (f"[TOOL_CALLS] [{ONE}, {ONE}]", "", TWO),
    "mistral, text before": (f"I look.[TOOL_CALLS][{ONE}]", "I look.", TWO[:1]),
    "mistral v11": (V11 + ODD, "", TWO[:1]),
    "mistral v11, two": (V11 + ODD + V11 + ODD, "", TWO),
    "mistral v11, id": ("[TOOL_CALLS]weather[CALL_ID]a1b2c3d4e[ARGS]" + ODD, "", TWO[:1]),
}
NO_CALLS = {
    "text": "Nothing to see: a < b, <tool, [TOOL] and { }.",
    "broken": '<tool_call>\n{"name": "weather", "arguments": {"city": }}\n</tool_call>',
    "no json": "<tool_call>weather</tool_call>",
    "cut": '<tool_call>\n{"name": "weather", "arguments": {"ci',
    "no name": '<tool_call>{"arguments": {}}</tool_call>',
    "no object": '<tool_call>{"name": "weather", "arguments": 5}</tool_call>',
    "a name that is none": '<tool_call>{"name": 5, "arguments": {}}</tool_call>',
    "xml, cut": "<tool_call>\n<function=weather>\n<parameter=city>\nPar",
    "xml, a name that is none": "<tool_call><function=a b></function></tool_call>",
    "xml, text between": "<tool_call><function=weather>\nso</function></tool_call>",
    "xml, another's name": "<function=Bob>\n</function> and more",
    "xml, half a mark": "far and <functio",
    "no numbers": '<tool_call>{"name": "weather", "arguments": {"x": NaN}}</tool_call>',
    "two commas": '<tool_call>{"name": "weather",, "arguments": {}}</tool_call>',
    "json": '{"city": "Paris", "name": "weather", "arguments": {}}',
    "another's name": '{"name": "Bob", "parameters": {}}',
    "json later": "So: " + LLAMA,
    "half a mark": "far and <tool_c",
    "a mark": "far and [TOOL_CALLS]",
    "half json": '{"name": "wea',
    "mistral, broken": "[TOOL_CALLS]weather[ARGS]{5}",
    "mistral, a sentence": "[TOOL_CALLS] is how Mistral's models begin {a call}.",
    "blanks": " \n",
}


def read(pieces, names=("weather",)):
    """Text, and names and arguments of the calls."""
    parser = ToolCallParser(names, SCHEMAS)
    text = "".join(parser.feed(Part(piece)) for piece in pieces)
    return text + parser.rest(), [(call.name, call.arguments) for call in parser.calls]


@pytest.mark.parametrize(("text", "text_left", "calls"), FAMILIES.values(), ids=FAMILIES)
def test_every_familys_calls_are_read_wherever_they_are_cut(text, text_left, calls):
    assert read([text]) == (text_left, calls)
    assert read(text) == (text_left, calls)
    for cut in range(1, len(text)):
        assert read([text[:cut], text[cut:]]) == (text_left, calls)


@pytest.mark.parametrize("text", NO_CALLS.values(), ids=NO_CALLS)
def test_what_is_no_call_is_text_to_the_letter(text):
    assert read([text]) == (text, [])
    assert read(text) == (text, [])
    for cut in range(1, len(text)):
        assert read([text[:cut], text[cut:]]) == (text, [])


@pytest.mark.parametrize(("text", "text_left", "calls"), FAMILIES.values(), ids=FAMILIES)
def test_no_half_of_a_mark_is_ever_shown(text, text_left, calls):
    parser, seen = ToolCallParser(["weather"], SCHEMAS), ""
    for letter in text:
        seen += parser.feed(Part(letter))
        assert text_left.startswith(seen)


@pytest.mark.parametrize(
    ("value", "schema", "expected"),
    [
        ("3", {"type": "integer"}, "3"),
        ("three", {"type": "integer"}, '"three"'),
        ("9" * 5000, {"type": "integer"}, f'"{"9" * 5000}"'),
        ("1.50", {"type": "number"}, "1.5"),
        ("2.0", {"type": "number"}, "2"),
        ("inf", {"type": "number"}, '"inf"'),
        ("True", {"type": "boolean"}, "true"),
        ("yes", {"type": "boolean"}, "false"),
        ("null", {"type": "string"}, '"null"'),
        ("None", {"type": ["string", "null"]}, "null"),
        ("null", {"anyOf": [{"type": "string"}, {"type": "null"}]}, "null"),
        ("null", {"type": "array"}, "null"),
        ('[1, 2.50, "\u00e3"]', {"type": "array"}, '[1, 2.50, "\u00e3"]'),
        ("{'a': True}", {"type": "object"}, '{"a": true}'),
        ("{half", {"type": "object"}, '"{half"'),
        ("[" * 10_000, {"type": "array"}, f'"{"[" * 10_000}"'),
        ("5", {}, '"5"'),
        ("5", None, '"5"'),
        ("5", {"type": "what"}, "5"),
    ],
)
def test_a_parameter_is_typed_by_its_schema_as_vllm_does(value, schema, expected):
    assert typed(value, schema) == expected


def test_a_request_that_has_no_schemas_has_texts():
    for parameters in (None, 5, {}, {"properties": 5}, {"properties": {"city": 5}}):
        tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
        parser = AnswerParser(Request("a", "", (), 9, tools=[tool]))
        assert parser.feed(f"<tool_call>{XML}</tool_call>", 9, False, True) == []
        assert [json.loads(call.arguments)["n"] for call in parser.calls] == ["3"]


def test_text_is_shown_as_it_comes():
    parser = ToolCallParser(["weather"])
    assert parser.feed(Part("So <b")) == "So <b"
    assert parser.feed(Part(" {")) == " {"
    assert ToolCallParser([]).feed(Part('{"city": ')) == '{"city": '
    parser = ToolCallParser(["weather"])
    assert parser.feed(Part("<tool_call> see")) == "<tool_call> see"


@pytest.mark.parametrize("arguments", ["null", '"{}"', '""', None])
def test_a_call_without_arguments_has_none(arguments):
    member = "" if arguments is None else f', "arguments": {arguments}'
    text = f'<tool_call>{{"name": "now"{member}}}</tool_call>'
    assert read([text]) == (("", [("now", "{}")]) if arguments != '""' else (text, []))


def test_arguments_that_are_a_text_are_the_object():
    text = json.dumps({"name": "weather", "arguments": ODD})
    assert read([f"<tool_call>{text}</tool_call>"]) == ("", [("weather", ODD)])


def test_ids_are_what_each_familys_template_takes():
    parser = ToolCallParser(["weather"])
    parser.feed(Part(f"<tool_call>{ONE}</tool_call>[TOOL_CALLS][{ONE}]"))
    hermes, mistral = (call.id for call in parser.calls)
    assert re.fullmatch(r"call_[A-Za-z0-9]{24}", hermes)
    assert re.fullmatch(r"[A-Za-z0-9]{9}", mistral)


def test_messages_to_a_function_are_its_calls():
    parser = ToolCallParser([])
    parts = [Part("I look."), Part('{"a"', function="f"), Part(": 1}", function="f")]
    parts += [Part("{half", function="g"), Part("done")]
    assert "".join(map(parser.feed, parts)) == "I look.{halfdone"
    assert [(call.name, call.arguments) for call in parser.calls] == [("f", '{"a": 1}')]
    assert parser.feed(Part("{}", function="h")) == ""
    assert parser.rest() == ""
    assert parser.calls[-1].name == "h"


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "' + "a" * MOST_CHARACTERS,
        "<tool_call>" + '{"a":' * 50_000,
        "<tool_call>" * 20_000,
        "{" * 100_000,
        "<" * 100_000,
        '<tool_call>{"name": "weather", "arguments": {"n": ' + "9" * 100_000 + "",
        "\n" * 100_000,
        "<tool_call><function=weather><parameter=city>" + "<" * 100_000,
        "<tool_call><function=weather><parameter=city>" + "</parameter>" * 10_000,
        "<tool_call><function=weather><parameter=city>" + "a" * MOST_CHARACTERS,
        "<tool_call><function=weather>" + "\n" * 10_000,
    ],
    ids=[
        *("long", "deep", "marks", "braces", "halves", "digits", "blanks"),
        *("xml, marks", "xml, ends", "xml, long", "xml, blanks"),
    ],
)
def test_a_hostile_text_is_bounded_and_shown(text):
    pieces = [text[n : n + 9] for n in range(0, len(text), 9)]
    assert read(pieces) == (text, [])


def test_a_number_of_many_digits_is_kept():
    arguments = '{"n": ' + "9" * 100_000 + "}"
    text = f'<tool_call>{{"name": "weather", "arguments": {arguments}}}</tool_call>'
    assert read([text]) == ("", [("weather", arguments)])


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>weather{"name": "weather", "arguments": {}}',
        '\n<|python_tag|>}{"name": "weather", "arguments": {"city": "P"}} and more than 64 of it',
        '<tool_call>"name": <|python_tag|>{"name": "weather", "parameters": {}}.',
        '{"city" <tool_call>{"name": "weather", "arguments": {}}</tool_call>',
        " " * 70 + LLAMA,
        "\n" + f"<tool_call>{ONE}</tool_call>",
    ],
)
def test_a_call_is_one_however_its_text_is_cut(text):
    """A fuzzer's: what a server sends in one piece, another sends a letter at a time."""
    whole = read([text])
    assert read(list(text)) == whole
    assert read([text[:9], text[9:]]) == whole


def test_marks_without_calls_take_no_longer_the_more_there_are():
    """Each mark had what stands behind it copied and read again: minutes for a megabyte."""
    for text in ("<tool_call>x" * 30_000, '<tool_call>{"a' + "<tool_call>x" * 90_000):
        start, parser = time.process_time(), ToolCallParser(["weather"])
        assert parser.feed(Part(text)) + parser.rest() == text
        assert time.process_time() - start < 10
