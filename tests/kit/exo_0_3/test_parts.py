"""The parts that need no exo: the outbox, the errors of its API, and the start of a model."""

import asyncio
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from exo_kit.kit.contract import Logprob, Piece
from exo_kit.kit.hosts.exo_0_3 import api
from exo_kit.kit.hosts.exo_0_3 import outbox as outbox_module
from exo_kit.kit.hosts.exo_0_3.outbox import Outbox, Text, texts_of
from exo_kit.kit.hosts.exo_0_3.place import place


def test_nothing_of_an_answer_comes_after_its_end_or_before_it_begins():
    outbox = Outbox()
    outbox.put("a", Text("early", False, 1))
    outbox.open("a", streamed=True)
    outbox.put("a", Text("b", False, 1))
    outbox.end("a", "finished")
    outbox.put("a", Text("late", False, 1))
    outbox.end("a", "again")
    assert outbox.take(0) == [("a", [Text("b", False, 1)], ("finished",))]
    assert outbox.take(0) == []


def test_a_first_text_comes_at_once_and_neighbours_of_one_kind_as_one():
    outbox = Outbox()
    outbox.open("a", streamed=True)
    outbox.put("a", Text("1", True, 1))
    assert outbox.take(5) == [("a", [Text("1", True, 1)], ())]
    for token, thinking in enumerate((True, True, False)):
        outbox.put("a", Text(str(token), thinking, token))
    assert outbox.take(0) == [], "it waits for its pace"
    outbox.end("a", "end")
    assert outbox.take(0) == [("a", [Text("01", True, 1), Text("2", False, 2)], ("end",))]


def test_a_token_with_its_logprob_is_a_chunk_of_its_own():
    outbox, same = Outbox(), Logprob(1, -0.5, ((1, -0.5),))
    outbox.open("a", streamed=False)
    texts = texts_of(Piece("ab", (1, 1), logprobs=(same, same))) + texts_of(Piece("c", (2,)))
    assert texts == [Text("", False, 1, same), Text("ab", False, 1, same), Text("c", False, 2)]
    assert texts_of(Piece("", (3,), logprobs=(same,))), "held back text is a token all the same"
    assert not texts_of(Piece("", (3,)))
    for text in texts:
        outbox.put("a", text)
    outbox.end("a", "end")
    assert outbox.take(5) == [("a", texts, ("end",))]


def test_an_answer_that_is_not_streamed_waits_for_its_end():
    outbox = Outbox()
    outbox.open("a", streamed=False)
    outbox.put("a", Text("1", False, 1))
    assert outbox.take(0.01) == []
    outbox.end("a", "end")
    assert outbox.take(5) == [("a", [Text("1", False, 1)], ("end",))]


@pytest.mark.parametrize(
    ("answers", "first", "later"),
    [(1, (10, 12), (4, 5)), (4, (18, 24), (18, 20)), (30, (60, 90), (55, 60))],
)
def test_a_chunk_a_moment_at_first_then_fewer_and_few_over_all(monkeypatch, answers, first, later):
    clock = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(outbox_module, "time", SimpleNamespace(monotonic=lambda: clock.seconds))
    outbox, chunks = Outbox(), [0, 0, 0]
    for key in range(answers):
        outbox.open(str(key), streamed=True)
    for moment in range(300):
        clock.seconds = 100.0 + moment / 100
        for key in range(answers):
            outbox.put(str(key), Text("a", False, 1))
        chunks[moment // 100] += len(outbox.take(0))
    assert first[0] <= chunks[0] <= first[1]
    assert later[0] <= chunks[1] <= later[1]
    assert later[0] <= chunks[2] <= later[1]


class Response:
    """What of StreamingResponse counts here: its status is sent first."""

    def __init__(self, content, media_type):
        self.body_iterator, self.media_type, self.status_code = content, media_type, 200

    async def stream_response(self, send):
        send(self.status_code)
        async for part in self.body_iterator:
            send(part)


class Api:
    async def _validate_model_has_instance(self, model_id):
        return model_id


WHOLE, STREAM = "application/json", "text/event-stream"


@pytest.mark.parametrize(
    ("model", "kind", "error", "sent"),
    [
        ("exo_kit/toy", WHOLE, None, [200, "text"]),
        ("exo_kit/toy", WHOLE, ValueError("too long"), [500, "too long"]),
        ("exo_kit/toy", WHOLE, AssertionError(), [500, api.GONE]),
        ("exo_kit/toy", STREAM, ValueError("too long"), [200, "exo's"]),
        ("mlx-community/x", WHOLE, ValueError("too long"), [200, "exo's"]),
    ],
)
def test_an_answer_of_ours_that_fails_whole_has_its_status(monkeypatch, model, kind, error, sent):
    exo = SimpleNamespace(API=type("API", (Api,), {}), StreamingResponse=Response)
    monkeypatch.setitem(sys.modules, "exo.api.main", exo)
    api.change(["exo_kit"])

    async def content():
        if error is not None:
            raise error
        yield "text"

    async def ask():
        lines = []
        assert await exo.API()._validate_model_has_instance(model) == model
        try:
            await exo.StreamingResponse(content(), media_type=kind).stream_response(lines.append)
        except ValueError:
            lines.append("exo's")
        return lines

    status, text = asyncio.run(ask())
    assert [status, json.loads(text)["error"]["message"] if status == 500 else text] == sent


def test_a_model_is_started_on_this_node_once_it_can_be():
    posted, paths = [], []
    previews = iter([[{"instance": None, "error": "no memory"}], [{"instance": {"I": 1}}]])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.answer("me" if self.path == "/node_id" else {"previews": next(previews)})

        def do_POST(self):
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.answer({})

        def answer(self, value):
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place("exo_kit/toy", server.server_port)
    server.shutdown()
    server.server_close()
    assert posted == [{"instance": {"I": 1}}]
    assert paths[-1] == "/instance/previews?model_id=exo_kit%2Ftoy&node_ids=me"
