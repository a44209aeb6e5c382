"""Chat templates are foreign code: what they write, and what they can't do to a node."""

import gc
import json
import subprocess
import sys
import time

import pytest

from exo_kit.kit.text import chat_template
from exo_kit.kit.text.chat_template import BoundError, ChatTemplate, TemplateError, compiled, render

HELLO = [{"role": "user", "content": "hello"}]
LOOPS = "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}"
WITHOUT_END = {
    "loops": LOOPS,
    "a macro": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
    "{{ m(60) }}",
    "a power": "{% set n = messages | length + 8 %}{{ n ** (10 ** 9) }}",
}
WITHOUT_ROOM = {
    "a product": "{{ 'a' * (messages | length * 10 ** 10) }}",
    "a filter": "{{ 'a' | center(messages | length * 10 ** 10) }}",
    "a format": "{{ '%10000000000d' % (messages | length) }}",
    "doubling": "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}"
    "{% endfor %}",
}


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A process starts slowly on a busy machine."""
    monkeypatch.setattr(chat_template, "LOAD_SECONDS", 30.0)


def test_a_prompt_is_written_up_to_where_the_answer_begins():
    template = compiled(
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content | tojson }}\n"
        "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    messages = [{"role": "user", "content": 'ä"\ud800'}]
    assert render(template, messages, {"bos_token": "<s>"}) == (
        '<s>[user] "ä\\"\ud800"\n[assistant]'
    )
    assert render(template, [], {"bos_token": ""}) == "[assistant]"


def test_a_template_refuses_or_fails_with_its_own_words():
    template = compiled(
        "{% if messages | length > 1 %}{{ raise_exception('one turn only') }}{% endif %}"
        "{{ messages[0].content + 1 }}"
    )
    with pytest.raises(TemplateError, match="one turn only"):
        render(template, HELLO * 2, {})
    with pytest.raises(TemplateError, match="concatenate"):
        render(template, HELLO, {})
    with pytest.raises(TemplateError, match="Expected an expression"):
        compiled("{% for %}}")


@pytest.mark.parametrize("source", WITHOUT_END.values(), ids=WITHOUT_END)
def test_a_template_without_end_is_ended_and_the_next_prompt_is_rendered(source):
    template = compiled("{% if messages | length == 1 %}" + source + "{% endif %}done")
    begun = time.monotonic()
    with pytest.raises(BoundError, match=r"takes longer than 0\.2 s"):
        render(template, HELLO, {}, 0.2)
    assert time.monotonic() - begun < 20
    assert render(template, HELLO * 2, {}) == "done"


def test_a_template_that_takes_too_long_to_compile_is_refused(monkeypatch):
    monkeypatch.setattr(chat_template, "LOAD_SECONDS", 0.5)
    with pytest.raises(BoundError, match=r"takes longer than 0\.5 s"):
        compiled("{{ (9 ** 99999) ** 99 }}")  # a constant: Jinja works it out


@pytest.mark.skipif(sys.platform != "linux", reason="the memory is bounded on Linux alone")
@pytest.mark.parametrize("source", WITHOUT_ROOM.values(), ids=WITHOUT_ROOM)
def test_a_template_that_takes_all_memory_is_refused(source):
    with pytest.raises(BoundError, match="takes more than 512 MB of memory"):
        render(compiled(source), HELLO, {}, 30.0)


def test_a_template_that_writes_without_end_is_refused(monkeypatch):
    template = compiled("{% for i in range(99999) %}{{ 'a' * 99 }}{% endfor %}")
    with pytest.raises(BoundError, match="writes more than 4194304 characters"):
        render(template, HELLO, {}, 30.0)
    monkeypatch.setattr(chat_template, "MOST_CHARACTERS", 10)
    with pytest.raises(BoundError, match="the chat template has 11 characters"):
        compiled("a" * 11)


def test_a_template_reaches_nothing_outside():
    for source in (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ strftime_now.__globals__.x }}",
        "{% include 'x' %}",
    ):
        with pytest.raises(TemplateError):
            render(compiled(source), HELLO, {})


def test_a_template_that_nobody_needs_any_more_leaves_no_process():
    process = compiled("x")._process
    assert process.poll() is None
    compiled("another model's")
    gc.collect()
    assert process.poll() is not None


def test_the_process_ends_with_its_parent():
    command = [sys.executable, "-P", str(chat_template._CHILD)]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": "\u00e4"}'}}


def test_tools_and_calls_come_as_templates_expect_them():
    template = compiled(
        "{% for t in tools or [] %}{{ t.function.name }};{% endfor %}"
        "{% for m in messages %}{{ m.role }}:{{ m.content }}{% for c in m.tool_calls or [] %}"
        "[{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}|{% endfor %}"
    )
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "5", "tool_call_id": "a"},
    ]
    tools = [{"type": "function", "function": {"name": "f"}}]
    text = 'assistant:None[f {"x": "\u00e4"}]|tool:5|'
    assert render(template, messages, {}, tools=tools) == "f;" + text
    assert render(template, messages, {}, tools=[]) == text
    assert messages[0]["tool_calls"] == [CALL]


@pytest.mark.parametrize("arguments", ["{half", "[" * 100_000, ""])
def test_arguments_that_are_no_json_stay_as_they_are(arguments):
    call = {"function": {"name": "f", "arguments": arguments}}
    template = compiled("{{ messages[0].tool_calls[0].function.arguments }}")
    text = render(template, [{"role": "assistant", "tool_calls": [call, "odd"]}], {})
    assert text == (arguments or "{}")


def test_a_template_without_tools_refuses_them():
    template = compiled("{{ messages[0].content }}")
    assert not template.takes_tools
    with pytest.raises(TemplateError, match="takes no tools"):
        render(template, HELLO, {}, tools=[{}])


def test_what_nobody_said_of_thinking_is_not_defined():
    template = compiled(
        "{% for x in [enable_thinking, thinking, reasoning_effort] %}"
        "{{ x if x is defined else '-' }} {% endfor %}"
    )
    assert render(template, HELLO, {}) == "- - - "
    assert render(template, HELLO, {}, enable_thinking=False) == "False False - "
    assert render(template, HELLO, {}, reasoning_effort="low") == "- - low "


def test_reasoning_has_both_names():
    template = compiled("{{ messages[0].reasoning_content }} {{ messages[0].thinking }}")
    for name in ("reasoning_content", "thinking"):
        assert render(template, [{"role": "assistant", name: "hm"}], {}) == "hm hm"


@pytest.mark.parametrize(("trim", "end"), [("", "wide  "), (" | trim", "wide")])
def test_a_last_message_goes_on(trim, end):
    template = compiled(
        "{% for m in messages %}<{{ m.content" + trim + " }}>{% endfor %}"
        "{% if add_generation_prompt %}<{% endif %}"
    )
    messages = [*HELLO, {"role": "assistant", "content": "far and wide  "}]
    text = render(template, messages, {}, continue_final_message=True)
    assert text == f"<hello><far and {end}"


def test_a_last_message_that_cannot_go_on_is_refused():
    empty = [{"role": "assistant", "content": None}]
    with pytest.raises(TemplateError, match="no text to go on with"):
        render(compiled("x"), empty, {}, continue_final_message=True)
    with pytest.raises(TemplateError, match="leaves out the end"):
        render(compiled("nothing"), HELLO, {}, continue_final_message=True)


def test_a_template_writes_todays_date():
    text = render(compiled("{{ strftime_now('%Y-%m-%d') }}"), HELLO, {})
    assert text == time.strftime("%Y-%m-%d")


def test_the_process_of_a_template_has_no_key_in_its_environment(tmp_path, monkeypatch):
    """What gets out of Jinja's sandbox (3.1.5 and before let some) can read its environment."""
    monkeypatch.setenv("HF_TOKEN", "a secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy")
    script = tmp_path / "prints.py"
    script.write_text(
        "import json, os, sys\n"
        "for line in sys.stdin:\n"
        "    print(json.dumps({'text': json.dumps(dict(os.environ))}), flush=True)\n"
    )
    monkeypatch.setattr(chat_template, "_CHILD", script)
    seen = json.loads(ChatTemplate("").render([], {}))
    ours = {"PYTHONPATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"}
    system = {"LC_CTYPE", "__CF_USER_TEXT_ENCODING"}  # what Python and macOS set by themselves
    assert "PYTHONPATH" in seen
    assert set(seen) <= ours | system
    assert "secret" not in str(seen)
