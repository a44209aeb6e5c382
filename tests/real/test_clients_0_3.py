"""The clients openai and anthropic of PyPI before a real exo 0.3: tools, in two rounds."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forced
import pytest
from conftest import render_into
from forced import ARGUMENTS, TEMPLATE
from nodes_0_3 import Node, install, namespace, node, why_not

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")

pytestmark = [
    pytest.mark.skipif(bool(why := why_not()), reason=str(why)),
    pytest.mark.xdist_group("real-exo-0-3"),
]

FAMILIES = pytest.mark.parametrize(
    ("family", "count"), [("hermes", 1), ("twice", 2), ("llama", 1), ("mistral", 1), ("coder", 1)]
)
PROPERTIES = {"city": {"type": "string"}, "days": {"type": "array"}, "note": {"type": "string"}}
SCHEMA = {"type": "object", "properties": PROPERTIES}
ABOUT = {"name": "weather", "description": "The weather of a city."}
FUNCTION = ABOUT | {"parameters": SCHEMA}
MODELS = """
from .kit.cards import Model, cards

MODELS = cards(Model("forced", "Forced", "owner/forced", 2))
"""


@pytest.fixture(scope="module")
def placed(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, str]]:
    """A node with a model that calls tools as it is told to."""
    root = tmp_path_factory.mktemp("clients")
    plugin = render_into(template, root / "exo-forced", variant="numpy")
    source = Path(forced.__file__).read_text(encoding="utf-8")
    (plugin / "exo_forced/backend.py").write_text(source, encoding="utf-8")
    (plugin / "exo_forced/models.py").write_text(MODELS, encoding="utf-8")
    python = install(root / "venv", plugin)
    folder = root / "forced"
    code = "import sys; from pathlib import Path; "
    code += (
        "from exo_forced.kit.llama.random_checkpoint import DEFAULT, write_checkpoint as write; "
    )
    code += "write(Path(sys.argv[1]), DEFAULT)"
    subprocess.run([python, "-c", code, folder], check=True)
    config = folder / "tokenizer_config.json"
    text = json.dumps(json.loads(config.read_text(encoding="utf-8")) | {"chat_template": TEMPLATE})
    config.write_text(text, encoding="utf-8")
    command = (python, "-m", "exo_forced", "exo", "--place", "none")
    with namespace() as space:
        settings = {"EXO_FORCED_FOLDERS": str(folder)}
        with node(space, root / "home", *command, **settings) as started:
            model = "exo_forced/forced"
            started.place(model)
            yield started, model


@pytest.fixture
def on(placed: Any) -> Callable[[Callable[..., Any]], Any]:
    """Function `on(call)`: call(client, model) on a thread in the node's network."""
    started, model = placed

    def run(call: Callable[..., Any]) -> Any:
        url = f"http://127.0.0.1:{started.port}"
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        return started.space.call(lambda: call(client, model))

    return run


@FAMILIES
def test_chat_completions(on: Any, family: str, count: int) -> None:
    tools = [{"type": "function", "function": FUNCTION}]
    messages: list[Any] = [{"role": "user", "content": family}]

    def ask(client: Any, model: str) -> Any:
        return client.chat.completions.create(model=model, messages=messages, tools=tools)

    [choice] = on(ask).choices
    calls = choice.message.tool_calls
    assert [(c.function.name, c.function.arguments) for c in calls] == [
        ("weather", ARGUMENTS)
    ] * count
    assert choice.finish_reason == "tool_calls"

    def stream(client: Any, model: str) -> Any:
        chunks = client.chat.completions.create(
            model=model, messages=messages, tools=tools, stream=True
        )
        return [chunk.choices[0] for chunk in chunks if chunk.choices]

    parts: dict[int, str] = {}
    chunks = on(stream)
    for call in [call for chunk in chunks for call in chunk.delta.tool_calls or []]:
        parts[call.index] = parts.get(call.index, "") + (call.function.arguments or "")
    assert list(parts.values()) == [ARGUMENTS] * count
    assert "<tool" not in "".join(chunk.delta.content or "" for chunk in chunks)
    messages.append(choice.message.model_dump(exclude_none=True))
    messages += [{"role": "tool", "tool_call_id": c.id, "content": "sunny"} for c in calls]
    assert on(ask).choices[0].message.content == "Done: sunny"


@FAMILIES
def test_responses(on: Any, family: str, count: int) -> None:
    tools = [{"type": "function"} | FUNCTION]
    conversation: list[Any] = [{"role": "user", "content": family}]

    def ask(client: Any, model: str) -> Any:
        return client.responses.create(model=model, input=conversation, tools=tools)

    def stream(client: Any, model: str) -> Any:
        with client.responses.stream(model=model, input=conversation, tools=tools) as events:
            return [event for event in events if event.type.endswith("arguments.done")]

    calls = [item for item in on(ask).output if item.type == "function_call"]
    assert [(c.name, c.arguments) for c in calls] == [("weather", ARGUMENTS)] * count
    assert [event.arguments for event in on(stream)] == [ARGUMENTS] * count
    conversation += [call.model_dump(exclude_none=True) for call in calls]
    kind = "function_call_output"
    conversation += [{"type": kind, "call_id": c.call_id, "output": "sunny"} for c in calls]
    assert on(ask).output_text == "Done: sunny"


@FAMILIES
def test_claude_messages(placed: Any, family: str, count: int) -> None:
    started, model = placed
    tools = [ABOUT | {"input_schema": SCHEMA}]
    messages: list[Any] = [{"role": "user", "content": family}]

    def ask(streams: bool) -> Any:
        url = f"http://127.0.0.1:{started.port}"
        client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
        about = {"model": model, "max_tokens": 300, "messages": messages, "tools": tools}
        if not streams:
            return client.messages.create(**about)
        with client.messages.stream(**about) as stream:
            return stream.get_final_message()

    for streams in (True, False):
        answer = started.space.call(lambda streams=streams: ask(streams))
        calls = [block for block in answer.content if block.type == "tool_use"]
        expected = [("weather", json.loads(ARGUMENTS))] * count
        assert [(call.name, call.input) for call in calls] == expected
        assert answer.stop_reason == "tool_use"
    content = [block.model_dump(exclude_none=True) for block in answer.content]
    messages.append({"role": "assistant", "content": content})
    kind = "tool_result"
    results = [{"type": kind, "tool_use_id": call.id, "content": "sunny"} for call in calls]
    messages.append({"role": "user", "content": results})
    answer = started.space.call(lambda: ask(False))
    assert "".join(block.text for block in answer.content if block.type == "text") == "Done: sunny"


def test_what_is_no_call_is_text(on: Any) -> None:
    tools = [{"type": "function", "function": FUNCTION}]
    messages = [{"role": "user", "content": "broken"}]
    reply = on(
        lambda client, model: client.chat.completions.create(
            model=model, messages=messages, tools=tools
        )
    )
    assert reply.choices[0].message.content == forced.ANSWERS["broken"]
    assert not reply.choices[0].message.tool_calls


def test_logprobs_are_one_for_each_token_streamed_or_not(on: Any) -> None:
    about: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "logprobs": True}

    def ask(client: Any, model: str) -> Any:
        return client.chat.completions.create(model=model, top_logprobs=2, **about)

    def stream(client: Any, model: str) -> Any:
        chunks = client.chat.completions.create(model=model, top_logprobs=2, stream=True, **about)
        choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
        return [item for each in choices if each.logprobs for item in each.logprobs.content]

    reply = on(ask)
    items = reply.choices[0].logprobs.content
    assert "".join(item.token for item in items) == "Hello."
    assert len(items) == reply.usage.completion_tokens
    for item in items:
        best, second = item.top_logprobs
        assert (best.token, best.logprob) == (item.token, item.logprob)
        assert second.logprob < -50 < best.logprob <= 0
    assert on(stream) == items


@pytest.mark.parametrize("thinks", [True, False])
def test_reasoning_is_apart_and_counted(on: Any, thinks: bool) -> None:
    reply = on(
        lambda client, model: client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "hi"}],
            extra_body={"enable_thinking": thinks},
        )
    )
    message, details = reply.choices[0].message, reply.usage.completion_tokens_details
    assert message.content == "Hello."
    thought = (message.model_extra or {}).get("reasoning_content") or ""
    assert thought.strip() == ("Let me think." if thinks else "")
    assert (details.reasoning_tokens > 0) is thinks
