"""Patches of exo's API: whole characters, errors in words, and clients that go away."""

import asyncio
from collections import defaultdict
from types import SimpleNamespace

import pytest
from patched import FAULTS, Client, EndsNever, FailsLater, count, live, reply, until
from plugin import ENGINE_CLASS
from toy import END, ToyAnswers, ToyBackend, write_tokenizer

from exo_kit.kit.hosts.exo_0_0.node_state import AGAIN, AnswerError
from exo_kit.kit.hosts.exo_0_0.patches import api as api_patches
from exo_kit.models import MODELS


@pytest.mark.parametrize("stream", [True, False])
async def test_the_closing_mark_is_not_shown(api, stream):
    made, _ = api(ToyBackend)
    response = await made.handle_post_chat_completions(Client(stream, "xyz"))
    assert reply(response) == (" <stop>", "stop")
    if not stream:
        assert response.body["usage"] == {"prompt_tokens": 3, "completion_tokens": 3}


@pytest.mark.parametrize("stream", [True, False])
async def test_an_eos_id_of_zero_is_a_stop(api, model_id, stream):
    made, _ = api(ToyBackend)
    write_tokenizer(MODELS[model_id]["repo"][ENGINE_CLASS], 0, also=(END,))
    made.tokenizer = SimpleNamespace(
        decode=made.tokenizer.decode, encode=made.tokenizer.encode, eos_token_id=0
    )
    response = await made.handle_post_chat_completions(Client(stream, "xyz"))
    assert reply(response) == (" <stop>", "stop")


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_a_servers_limit_ended_ends_by_length(api, stream):
    class Cut(ToyAnswers):
        async def answer(self, request):
            yield self.piece(ids=(1, 2))
            yield self.piece(finish="length")

    made, _ = api(Cut, 2)
    response = await made.handle_post_chat_completions(Client(stream, "xyz"))
    assert reply(response) == ("ab", "length")


@pytest.mark.parametrize("size", [1, 2])
async def test_an_answer_that_fills_the_context_ends_by_length(api, size):
    class Short(ToyBackend):
        context = 6

    made, _ = api(Short, size)
    response = await made.handle_post_chat_completions(Client(True, "abc"))
    assert reply(response) == ("def", "length")


async def test_without_the_patch_the_closing_mark_is_shown(api, without):
    without("whole_text")
    made, _ = api(ToyBackend)
    response = await made.handle_post_chat_completions(Client(True, "xyz"))
    assert reply(response) == (" <stop><end>", "stop")


def byte_tokenizer():
    """A token a byte, and one that ends: characters of several tokens."""

    def decode(ids, **_):
        return bytes(i for i in ids if i < 256).decode("utf-8", "replace") + "<end>" * (256 in ids)

    return SimpleNamespace(decode=decode, encode=lambda text: list(text.encode()), eos_token_id=256)


@pytest.mark.parametrize("words", ["\u65e5\u672c\u8a9e", "\U0001f642 ok", "\u0928\u092e\u0938"])
def test_streams_have_whole_characters(api_module, use, words):
    use(ToyBackend)
    tokenizer, ids = byte_tokenizer(), [*words.encode(), 256]
    chat = SimpleNamespace(model=next(iter(MODELS)))
    pieces = []
    for n, token in enumerate(ids):
        finish = "stop" if n == len(ids) - 1 else None
        made = api_module.generate_completion(
            chat, tokenizer, "", "streams", [token], True, finish, "chat.completion"
        )
        pieces.append(made["choices"][0]["delta"]["content"])
    assert "".join(pieces) == words
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("stream", [True, False])
def test_a_limit_within_a_character_leaves_it_out(api_module, use, stream):
    use(ToyBackend)
    chat = SimpleNamespace(model=next(iter(MODELS)))
    tokens = list("a\U0001f642".encode())[:-1]
    events = [[token] for token in tokens] if stream else [tokens]
    text = ""
    for n, ids in enumerate(events):
        finish = "length" if n == len(events) - 1 else None
        made = api_module.generate_completion(
            chat, byte_tokenizer(), "", f"cut {stream}", ids, stream, finish, "chat.completion"
        )
        text += made["choices"][0]["delta" if stream else "message"]["content"]
    assert text == "a"


def test_other_engines_models_are_left_to_exo(api_module, use):
    use(ToyBackend)
    chat = SimpleNamespace(model="llama-3.2-1b")
    made = api_module.generate_completion(
        chat, byte_tokenizer(), "", "r", [256], False, "stop", "chat.completion"
    )
    assert made["choices"][0]["message"]["content"] == "<end>"


def test_an_exo_that_shows_whole_text_is_left_alone(api_module, use, monkeypatch):
    state = {}

    def repaired(chat, tokenizer, prompt, request_id, tokens, stream, finish, kind):
        ids = state.setdefault(request_id, [])
        before = tokenizer.decode(ids).rstrip("\ufffd")
        ids.extend(i for i in tokens if i != tokenizer.eos_token_id)
        new = tokenizer.decode(ids).rstrip("\ufffd")[len(before) :]
        return {"choices": [{"delta": {"content": new}, "finish_reason": finish}]}

    monkeypatch.setattr(api_module, "generate_completion", repaired)
    use(ToyBackend)
    assert api_module.generate_completion is repaired


class FailsFirst(ToyBackend):
    """The last layers' device is gone."""

    def step(self, request_id, x):
        if self.layers.ends:
            raise OSError("the device went away")
        return super().step(request_id, x)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("size", [1, 2])
async def test_a_first_step_that_fails_is_an_http_error(api, stream, size):
    made, _ = api(FailsFirst, size)
    response = await made.handle_post_chat_completions(Client(stream))
    assert response.status == 500
    assert "the device went away" in response.body["detail"]


async def test_without_the_patch_such_a_failure_of_another_node_is_an_answer(api, without):
    without("first_token_or_error")
    made, _ = api(FailsFirst, 2)
    response = await made.handle_post_chat_completions(Client(True))
    assert response.status == 200


async def test_a_node_that_is_gone_is_http_503(api):
    made, nodes = api(ToyBackend, 2)
    nodes[0].peers[0].down = True
    response = await made.handle_post_chat_completions(Client(False))
    assert response.status == 503
    assert "a node of the cluster went away" in response.body["detail"]


async def test_a_node_that_was_stopped_is_http_503_too(api):
    """gRPC brings its peer the sentence, and may be quicker than what it says of the answer."""
    made, nodes = api(ToyBackend, 2)

    async def process_tensor(*_, **__):
        raise AnswerError(f"exo_kit: stopped. {AGAIN}", lost=True)

    nodes[1].process_tensor = process_tensor
    response = await made.handle_post_chat_completions(Client(False))
    assert "stopped" in response.body["detail"]
    assert response.status == 503


@pytest.mark.parametrize("size", [1, 2])
async def test_a_stream_that_fails_ends_with_the_sentence(api, size):
    made, _ = api(FailsLater, size)
    response = await made.handle_post_chat_completions(Client(True))
    text, finish = reply(response)
    assert text.startswith("d\n[")
    assert text.endswith(": the device went away]")
    assert finish == "length"


async def test_what_the_clients_of_other_nodes_read_is_dropped(ring, monkeypatch):
    monkeypatch.setattr(api_patches, "KEEP_SECONDS", 0.0)
    [node] = ring(ToyBackend)

    async def handle_tokens(self, request_id, tokens, is_finished):
        await self.token_queues[request_id].put((tokens, is_finished))

    made = SimpleNamespace(node=node, token_queues=defaultdict(asyncio.Queue))
    engine_class = type(node.inference_engine)
    patched = FAULTS["drop_unread_tokens"].wrap(handle_tokens, engine_class)
    node.inference_engine.state.clients.add("read here")
    for request_id in ("read here", "read elsewhere"):
        await patched(made, request_id, [1], True)
    await until(lambda: "read elsewhere" not in made.token_queues)
    assert list(made.token_queues) == ["read here"]


async def test_an_answer_that_fails_whole_is_an_http_error(api):
    made, _ = api(FailsLater)
    response = await made.handle_post_chat_completions(Client(False))
    assert response.status == 500
    assert "the device went away" in response.body["detail"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("size", [1, 2])
async def test_a_client_that_goes_away_ends_its_answer_everywhere(api, monkeypatch, stream, size):
    monkeypatch.setattr(api_patches, "LOOK_SECONDS", 0.001)
    made, nodes = api(EndsNever, size, 10_000)
    cancelled, client = count("cancelled"), Client(stream)
    call = asyncio.ensure_future(made.handle_post_chat_completions(client))
    await until(lambda: all(live(node) for node in nodes))
    client.closed = True
    await until(lambda: count("cancelled") == cancelled + size)
    await until(lambda: not any(live(node) for node in nodes))
    await asyncio.wait_for(call, 30)
    steps = len(nodes[0].inference_engine.engine.executor.instance.threads)
    await asyncio.sleep(0.02)
    assert len(nodes[0].inference_engine.engine.executor.instance.threads) <= steps + 1


async def test_without_the_patch_the_answer_of_a_client_that_is_gone_runs_on(
    api, monkeypatch, without
):
    without("notice_clients")
    made, nodes = api(EndsNever, most=10_000)
    client = Client(True)
    call = asyncio.ensure_future(made.handle_post_chat_completions(client))
    await until(lambda: live(nodes[0]))
    client.closed = True
    call.cancel()
    await asyncio.sleep(0.05)
    assert live(nodes[0])


async def test_a_client_that_breaks_off_is_cancelled_too(api):
    made, nodes = api(EndsNever, most=10_000)
    cancelled, client = count("cancelled"), Client(True)

    def write(event):
        raise ConnectionResetError("cannot write to closing transport")

    client.write = write
    await made.handle_post_chat_completions(client)
    assert count("cancelled") == cancelled + 1
    await until(lambda: not live(nodes[0]))
