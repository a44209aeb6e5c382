"""HTTP to a server that may do anything: bounded, and every failure a sentence."""

import asyncio
import gzip
import time
from contextlib import aclosing, asynccontextmanager

import aiohttp
import pytest
from raw_server import OK, RawServer, http, lines_of, serving
from running import until

from exo_kit.kit.server import client as client_module
from exo_kit.kit.server.address import Address
from exo_kit.kit.server.client import Client, Reply, ServerError
from exo_kit.kit.server.settings import Settings

STREAMED = b"HTTP/1.1 200 OK\r\n\r\n"


@asynccontextmanager
async def asking(raw, url=None, **patience):
    """A client of a raw server."""
    async with serving(raw):
        client = Client(Settings(Address.parse(url or raw.url), **patience))
        try:
            async with asyncio.timeout(30):
                yield client
        finally:
            await client.close()


async def test_one_connection_is_kept_for_all_requests():
    async with serving(RawServer(OK)) as raw:
        client = Client(Settings(Address.parse(raw.url)))
        for _ in range(3):
            assert (await client.post("/x", {}, 30)).json == {"fine": 1}
        assert await lines_of(client) == [b'{"fine": 1}']
        assert raw.connections == 1
        await client.close()
        await until(lambda: raw.open == 0)


async def test_a_kept_connection_that_the_server_has_closed_is_no_error():
    raw = RawServer(OK)

    async def answer_and_close(writer):
        writer.write(OK)
        writer.close()

    raw._answers = [answer_and_close, OK]
    async with asking(raw) as client:
        await client.post("/x", {}, 30)
        assert (await client.post("/x", {}, 30)).json == {"fine": 1}
    assert raw.connections == 2


async def test_a_kept_connection_that_breaks_when_it_is_taken_is_no_error(monkeypatch):
    connect = aiohttp.TCPConnector.connect

    async def breaking(self, *args, **named):
        made = await connect(self, *args, **named)
        if requests and raw.connections == 1:
            made.protocol.connection_lost(None)
        return made

    raw, requests = RawServer(OK), []
    monkeypatch.setattr(aiohttp.TCPConnector, "connect", breaking)
    async with asking(raw) as client:
        for _ in range(2):
            assert (await client.post("/x", {}, 30)).json == {"fine": 1}
            requests.append(1)
    assert raw.connections == 2


async def test_a_kept_connection_that_closes_while_it_is_written_to_is_no_error(monkeypatch):
    send = aiohttp.ClientRequest.send

    async def closing(self, connection):
        if requests and raw.connections == 1:
            connection.transport.close()
        return await send(self, connection)

    raw, requests = RawServer(OK), []
    monkeypatch.setattr(aiohttp.ClientRequest, "send", closing)
    async with asking(raw) as client:
        for _ in range(2):
            assert (await client.post("/x", {}, 30)).json == {"fine": 1}
            requests.append(1)
    assert raw.connections == 2


async def test_a_new_connection_that_breaks_is_not_tried_again():
    async def close(writer):
        writer.close()

    raw = RawServer(close)
    async with asking(raw) as client:
        with pytest.raises(ServerError, match="broke the connection off"):
            await client.post("/x", {}, 30)
    assert raw.connections == 1


async def test_a_connection_that_is_cancelled_is_made_to_its_end_and_closed(monkeypatch):
    loop, made, begun = asyncio.get_running_loop(), [], asyncio.Event()
    create = loop.create_connection

    async def slowly(*args, **named):
        begun.set()
        await asyncio.sleep(0.02)
        made.append(await create(*args, **named))
        return made[-1]

    monkeypatch.setattr(loop, "create_connection", slowly)
    async with asking(RawServer(OK)) as client:
        request = asyncio.ensure_future(client.get("/x"))
        await begun.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await until(lambda: made and made[0][0].is_closing())


async def test_connections_are_bounded(monkeypatch):
    monkeypatch.setattr(client_module, "CONNECTIONS", 2)

    async def slowly(writer):
        await asyncio.sleep(0.02)
        writer.write(OK)

    raw = RawServer(slowly)
    async with asking(raw) as client:
        await asyncio.gather(*(client.get("/x") for _ in range(6)))
    assert (raw.most_open, len(raw.heard)) == (2, 6)


async def test_a_stream_may_take_long_while_bytes_keep_coming(monkeypatch):
    """By a clock that goes on with each line: ten minutes of silences of one."""
    loop, passed, came = asyncio.get_running_loop(), [0.0], asyncio.Event()
    clock = loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + passed[0])

    async def slowly(writer):
        writer.write(STREAMED)
        for _ in range(10):
            came.clear()
            writer.write(b"a\n")
            await came.wait()
        writer.close()

    patience = {"connect_seconds": 30, "silence_seconds": 90}
    async with serving(RawServer(slowly)) as raw:
        client = Client(Settings(Address.parse(raw.url), **patience))
        async with aclosing(client.lines("/x", {})) as lines:
            async for _ in lines:
                passed[0] += 60.0
                came.set()
        await client.close()
    assert passed == [600.0]


async def test_silence_is_an_error():
    async def silent(writer):
        writer.write(STREAMED + b"a\n")
        await asyncio.Event().wait()

    async with asking(RawServer(silent), silence_seconds=0.05) as client:
        with pytest.raises(ServerError, match="silent"):
            await lines_of(client)


async def test_lines_come_whole_however_they_are_cut():
    async def in_pieces(writer):
        for piece in (STREAMED, b"on", b"e\n", b"\r\n\ntw", b"o\nthr", b"ee"):
            writer.write(piece)
            await asyncio.sleep(0.005)
        writer.close()

    async with asking(RawServer(in_pieces)) as client:
        assert await lines_of(client) == [b"one", b"two", b"three"]


async def test_a_compressed_body_is_refused_unread():
    bomb = gzip.compress(bytes(10_000_000))
    for packed in ("gzip", "deflate", "br"):
        async with asking(RawServer(http(bomb, "200 OK", f"Content-Encoding: {packed}"))) as client:
            with pytest.raises(ServerError, match="compressed, which nobody asked"):
                await client.get("/x")
            with pytest.raises(ServerError, match="compressed, which nobody asked"):
                await lines_of(client)


@pytest.mark.parametrize(
    ("bound", "data"),
    [("LINE", b"a" * 1000), ("STREAM", b"a\n" * 500), ("REFUSAL", b"a\n" * 500)],
    ids=["line", "stream", "refusal"],
)
async def test_an_endless_stream_is_cut_off(monkeypatch, bound, data):
    monkeypatch.setattr(client_module, bound, 100_000)
    head = STREAMED.replace(b"200 OK", b"500 No") if bound == "REFUSAL" else STREAMED

    async def endless(writer):
        writer.write(head)
        await raw.endless(writer, data)

    raw = RawServer(endless)
    async with asking(raw) as client:
        with pytest.raises(ServerError, match="sent more than 100000 bytes"):
            await lines_of(client)


async def test_an_endless_body_is_cut_off(monkeypatch):
    monkeypatch.setattr(client_module, "BODY", 100_000)

    async def endless(writer):
        writer.write(STREAMED)
        await raw.endless(writer, b"a" * 1000)

    raw = RawServer(endless)
    async with asking(raw) as client:
        with pytest.raises(ServerError, match="sent more than 100000 bytes"):
            await client.get("/x")
    assert raw.sent < 20_000_000


async def test_a_long_header_is_refused():
    async with asking(RawServer(http(b"{}", "200 OK", "X: " + "a" * 100_000))) as client:
        with pytest.raises(ServerError, match="broke the connection off"):
            await client.get("/x")


@pytest.mark.parametrize(
    "page", ["<" * 100_000, "<a" * 50_000, "<a>" * 50_000], ids=["marks", "open", "closed"]
)
def test_a_page_is_cleaned_in_no_time(page):
    begun = time.process_time()
    Reply(500, None, page).words()
    assert time.process_time() - begun < 3  # it took 6 s when the time grew with the square


def test_what_a_server_says_steers_no_terminal():
    page = "<h1>\x1b[31mBad\x1b]0;title\x07</h1>\u202e\x9b2J \r\nGateway\x00"
    for reply in (Reply(500, None, page), Reply(500, {"error": {"message": page}}, "")):
        assert not set("\x1b\x07\x9b\x00\u202e\r\n") & set(reply.words())
        assert "Bad" in reply.words()


@pytest.mark.parametrize("status", ["301 Moved", "307 Temporary Redirect", "308 Permanent"])
async def test_a_redirect_is_refused_and_the_key_stays_here(status):
    other = RawServer(OK)
    async with serving(other):
        place = other.url.replace("//", "//you:theirs@") + "/y?key=theirs"
        raw = RawServer(http(b"", status, f"Location: {place}"))
        async with serving(raw):
            url = raw.url.replace("//", "//me:secret@")
            client = Client(Settings(Address.parse(url), url_name="SOME_URL"))
            with pytest.raises(ServerError, match=r"redirect to .*Set SOME_URL") as caught:
                await client.post("/x", {"prompt": "private"}, 5)
            await client.close()
        assert other.url in str(caught.value)
        assert not any(word in str(caught.value) for word in ("secret", "theirs", "private"))
    assert b"Authorization: Basic" in raw.heard[0]
    assert not other.heard
