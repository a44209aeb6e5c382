"""Why no connection to a server is made, said plainly and without its secrets."""

import asyncio
import shutil
import socket
import ssl
import subprocess

import aiohttp
import pytest
from raw_server import OK, RawServer, http, lines_of, serving

from exo_kit.kit.server.address import Address
from exo_kit.kit.server.client import Client, ServerError
from exo_kit.kit.server.settings import Settings


async def why_none(url):
    """Why there is no server at an address, as the sentence says it."""
    client = Client(Settings(Address.parse(url), url_name="SOME_URL"))
    with pytest.raises(ServerError) as caught:
        await client.get("/x")
    await client.close()
    sentence = str(caught.value)
    head, tail = f"no server at {url}/x (", "); start it, or set SOME_URL"
    assert sentence.startswith(head)
    assert sentence.endswith(tail)
    return sentence.removeprefix(head).removesuffix(tail)


async def test_why_no_connection_is_made_is_said_plainly(monkeypatch):
    async def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def no_tls(reader, writer):
        await reader.read(1)
        writer.write(http(b"", "400 Bad Request"))
        writer.close()

    async with await asyncio.start_server(no_tls, "127.0.0.1", 0) as plain:
        port = plain.sockets[0].getsockname()[1]
        assert await why_none(f"https://127.0.0.1:{port}") == "it speaks no TLS: write http://"
    assert await why_none(f"http://127.0.0.1:{port}") == "connection refused"
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    assert await why_none("http://nobody.invalid:9") == "no such host"


async def test_a_server_that_speaks_tls_is_not_asked_without():
    async def tls_alone(reader, writer):
        await reader.read(1)
        writer.transport.abort()

    async with await asyncio.start_server(tls_alone, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = Client(Settings(Address.parse(f"http://127.0.0.1:{port}")))
        with pytest.raises(ServerError, match="where it speaks TLS, write https://"):
            await client.get("/x")
        await client.close()


async def test_a_proxy_that_is_not_used_is_named(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy:1")
    client = Client(Settings(Address.parse("http://127.0.0.1:9")))
    with pytest.raises(ServerError, match="HTTPS_PROXY is not used") as caught:
        await client.get("/x")
    assert "secret" not in str(caught.value)
    await client.close()


def certificate(folder, name, days):
    """The files of a certificate that signs itself."""
    key, signed = folder / "key.pem", folder / "signed.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key]
    command += ["-out", signed, "-days", str(days), "-subj", "/CN=x", "-addext"]
    subprocess.run([*command, f"subjectAltName={name}"], check=True, capture_output=True)
    return signed, key


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
@pytest.mark.parametrize(
    ("name", "trusted", "words"),
    [
        ("IP:127.0.0.1", False, "signed by nobody known here: name its issuer's in SSL_CERT_FILE"),
        ("IP:127.0.0.2", True, "for another address"),
        ("IP:127.0.0.1", True, None),
    ],
)
async def test_a_certificate_that_is_not_taken_says_why(
    tmp_path, monkeypatch, name, trusted, words
):
    signed, key = certificate(tmp_path, name, 2)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed, key)
    if trusted:
        mine = ssl.create_default_context(cafile=str(signed))
        monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", mine)

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        client = Client(Settings(Address.parse(f"https://127.0.0.1:{port}")))
        if words:
            with pytest.raises(ServerError, match=words):
                await client.get("/x")
        else:
            assert (await client.get("/x")).status == 200
        await client.close()


async def test_who_does_not_answer_a_connection_is_no_server(monkeypatch):
    async def never(*_, **__):
        raise aiohttp.ConnectionTimeoutError

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", never)
    assert await why_none("http://127.0.0.1:9") == "it does not answer"
    tls = await why_none("https://127.0.0.1:9")
    assert tls == "it does not answer; where it speaks no TLS, write http://"


async def test_no_error_shows_a_password():
    body = b'{"error": "no secret-word of http://me:secret-word@x/?key=k1"}'
    raw = RawServer(http(body, "500 No"))
    async with serving(raw):
        url = raw.url.replace("//", "//me:secret-word@")
        client = Client(Settings(Address.parse(url)))
        with pytest.raises(ServerError, match="answered 500: no … of http://x/") as caught:
            await lines_of(client)
        assert "k1" not in str(caught.value)
        await client.close()
    client = Client(Settings(Address.parse(url)))
    with pytest.raises(ServerError, match="no server at http://127") as caught:
        await client.get("/x")
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(client.settings)
    await client.close()
