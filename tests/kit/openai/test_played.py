"""Every server that people have, played: its stream is an answer, its failure a sentence."""

import pytest
from hosting import Host, within
from played import CONTEXT, KINDS, PROMPT, TEXT, chunk, data, error, whole
from serving import SETTINGS

from exo_kit.kit.contract import RequestError, Usage
from exo_kit.kit.server.client import ServerError

EVERY = pytest.mark.parametrize("played", KINDS, indirect=True)


@EVERY
async def test_its_stream_is_the_answer_with_its_own_counts(played, asking):
    pieces = await within(30, whole(asking, "a"))
    assert "".join(piece.text for piece in pieces) == "".join(TEXT)
    assert pieces[-1].finish == "stop"
    assert pieces[-1].usage == Usage(PROMPT, len(TEXT))


@EVERY
async def test_what_is_neutral_is_not_sent(played, asking):
    await within(30, whole(asking, "a"))
    optional = {"model", "messages", "stream", "max_tokens", "temperature", "stream_options"}
    own = {"repeat_penalty"} if played.kind.owner == "me" else set()
    assert played.bodies[-1].keys() == optional | own
    await within(30, whole(asking, "b", temperature=0.7, top_p=0.9, seed=7))
    body = played.bodies[-1]
    assert (body["temperature"], body["top_p"], body["seed"]) == (0.7, 0.9, 7)


@EVERY
async def test_its_failure_within_a_stream_is_a_sentence_with_its_words(played, asking):
    played.fails = True
    with pytest.raises(ServerError, match=played.kind.words):
        await within(30, whole(asking, "a"))
    assert await within(30, whole(asking, "b"))


@pytest.mark.parametrize("played", [k for k, kind in KINDS.items() if kind.limit], indirect=True)
async def test_its_limit_is_kept_after_one_refusal(played, asking):
    pieces = await within(30, whole(asking, "a", most=10_000))
    assert "".join(piece.text for piece in pieces) == "".join(TEXT)
    assert played.bodies[0]["max_tokens"] == 10_000
    assert len(played.bodies) == 2
    assert CONTEXT - PROMPT - 40 < played.bodies[1]["max_tokens"] < CONTEXT - PROMPT
    await within(30, whole(asking, "b", most=10_000))
    assert len(played.bodies) == 3


@pytest.mark.parametrize("played", ["tensorrt-llm"], indirect=True)
async def test_a_field_that_it_refuses_is_left_out_from_then_on_and_said_once(
    played, asking, caplog
):
    for name in ("a", "b"):
        await within(30, whole(asking, name, temperature=1.0, min_p=0.1, top_k=5, seed=1))
    assert [set(body) & {"min_p", "top_k"} for body in played.bodies] == [
        {"min_p", "top_k"}, set(), set(),
    ]  # fmt: skip
    assert played.bodies[-1]["seed"] == 1
    assert caplog.text.count("does not take min_p, top_k: they are left out") == 1


STREAMS = {
    "words of FastAPI": (data({"detail": "the model is gone"}), "the model is gone"),
    "a list of errors": (
        data({"detail": [{"loc": ["body", "x"], "msg": "Field required"}]}),
        "body.x: Field required",
    ),
    "code and details": (data({"code": 503, "details": "no worker"}, "[DONE]"), "no worker"),
    "a text": (data("Internal Server Error", "[DONE]"), "Internal Server Error"),
    "an event of its own": (data({"foo": {"bar": 1}}, "[DONE]"), r'\{"foo": \{"bar": 1\}\}'),
    "an error without words": ([b"event: error\ndata: {}\n\n"], "broke the answer off"),
    "a choice's own": (
        data(chunk({"content": ""}, "error", error={"code": 502, "message": "provider down"})),
        "provider down",
    ),
    "aborted": (data(chunk({}, "abort")), "ended with 'abort'"),
    "filtered": (data(chunk({}, "content_filter")), "ended with 'content_filter'"),
    "of several lines": (
        [b'event: error\ndata: {"error":\ndata: {"message": "split"}}\n\n'], "split"
    ),
    "a pretty body": ([b'{\n  "error": {\n    "message": "pretty"\n  }\n}\n'], "pretty"),
    "an image": (data(chunk({"content": [{"type": "image_url"}]})), "which is no text"),
}  # fmt: skip


@pytest.mark.parametrize("shape", STREAMS)
@pytest.mark.parametrize("played", ["litellm"], indirect=True)
async def test_an_error_of_any_shape_ends_the_answer_with_its_words(played, asking, plays, shape):
    events, words = STREAMS[shape]
    for start in ([], data(chunk({"content": "Half an ans"}))):
        plays(start + events)
        with pytest.raises(ServerError, match=words):
            await within(30, whole(asking, f"{shape}{len(start)}"))


CONTENTS = {
    "parts": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}],
    "strings": ["Hel", "lo"],
    "a part": {"type": "text", "text": "Hello"},
    "values": [{"type": "text", "text": {"value": "Hello"}}],
    "thinking": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}, "Hello"],
}


@pytest.mark.parametrize("shape", CONTENTS)
@pytest.mark.parametrize("played", ["litellm"], indirect=True)
async def test_content_in_parts_is_their_text(asking, plays, shape):
    events = [b": OPENROUTER PROCESSING\n\n", b'event: ping\ndata: {"type": "ping"}\n\n']
    filtered = {"choices": [], "prompt_filter_results": []}
    events += data(filtered, chunk({"content": CONTENTS[shape]}), chunk({}, "stop"), "[DONE]")
    plays(events)
    pieces = await within(30, whole(asking, "a"))
    assert "".join(piece.text for piece in pieces if not piece.thinking) == "Hello"
    thought = "".join(piece.text for piece in pieces if piece.thinking)
    assert thought == ("Hm" if shape == "thinking" else "")


@pytest.mark.parametrize(
    "events",
    [
        data(chunk({"role": "assistant"}), chunk({}, "stop"), "[DONE]"),
        data("[DONE]"),
        data(chunk({"content": None}, "length"), "[DONE]"),
        data({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 0}}, "[DONE]"),
    ],
)
@pytest.mark.parametrize("played", ["litellm"], indirect=True)
async def test_an_end_without_a_word_is_a_sentence(played, asking, plays, events):
    plays(events)
    with pytest.raises(RequestError, match="ended the answer without a word"):
        await within(30, whole(asking, "a"))


@pytest.mark.parametrize("played", ["litellm"], indirect=True)
async def test_a_server_is_asked_again_once_whatever_it_refuses(played, asking, plays):
    contexts = iter(range(1000, 9000, 7))

    def refuses(_):
        return 400, error(f"maximum context length is {next(contexts)} tokens")

    plays(refuses=refuses)
    with pytest.raises(RequestError, match="maximum context length"):
        await within(30, whole(asking, "a", most=10_000))
    assert len(played.bodies) <= 3  # with less, and without stream_options


@pytest.mark.parametrize("played", ["litellm"], indirect=True)
async def test_nothing_but_pieces_is_a_sign_of_life(played, device, plays, monkeypatch):
    monkeypatch.setenv(f"{SETTINGS}URL", played.url)
    monkeypatch.setenv(f"{SETTINGS}SILENCE_SECONDS", "0.3")
    host = Host(device)
    await host.load()
    played.tokens_per_second = 50
    plays([b": wait\n\n", *data(chunk({"role": "assistant", "content": ""}))] * 1500)  # a minute
    with pytest.raises(ServerError, match="silent for too long"):
        await within(30, whole(host, "a"))
    await host.engine.close()


RENAMED = (
    "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead"
)


@pytest.mark.parametrize("played", ["litellm"], indirect=True)
@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (RENAMED, "max_completion_tokens", 50),
        ("`temperature` must be strictly positive", "temperature", 0.01),
    ],
)
async def test_a_refused_name_or_value_gets_its_other(played, asking, plays, words, field, value):
    def refuses(body):
        return None if body.get(field) == value else (400, error(words))

    plays(refuses=refuses)
    assert await within(30, whole(asking, "a"))
    assert len(played.bodies) == 2


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def call(index, **function):
    """A fragment of a call, as OpenAI's API streams it."""
    member = {"index": index, "function": function}
    return chunk({"tool_calls": [member | ({"id": f"id{index}"} if "name" in function else {})]})


WHOLE = {"id": "id0", "function": {"name": "weather", "arguments": {"city": "Köln"}}}
CALLS = {
    "fragments": (
        [
            chunk({"content": "Let me see."}),
            call(0, name="weather", arguments=""),
            *(call(0, arguments=text) for text in ('{"city": ', '"Kö', 'ln"}')),
            call(1, name="time", arguments="{}"),
            chunk({}, "tool_calls"),
        ],
        [("id0", "weather", '{"city": "Köln"}'), ("id1", "time", "{}")],
    ),
    "whole, and an end like any": (
        [chunk({"tool_calls": [WHOLE]}), chunk({}, "stop")],
        [("id0", "weather", '{"city": "Köln"}')],
    ),
    "without an id or an index": (
        [chunk({"tool_calls": [{"function": {"name": "time"}}]}, "tool_calls")],
        [("call_", "time", "{}")],
    ),
}


@pytest.mark.parametrize("shape", CALLS)
@pytest.mark.parametrize("played", ["litellm"], indirect=True)
async def test_tool_calls_come_whole(played, asking, plays, shape):
    events, calls = CALLS[shape]
    plays(data(*events, "[DONE]"))
    pieces = await within(30, whole(asking, "a", tools=[WEATHER]))
    assert played.bodies[-1]["tools"] == [WEATHER]
    assert pieces[-1].finish == "tool_calls"
    made = [(c.id[:5], c.name, c.arguments) for piece in pieces for c in piece.tool_calls]
    assert made == calls
    assert all(len(c.id) == 29 for c in pieces[-1].tool_calls if c.id.startswith("call_"))
    assert "".join(piece.text for piece in pieces) == ("Let me see." if len(calls) > 1 else "")
