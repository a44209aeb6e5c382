"""A server's address is taken apart once, and never shown with what is secret."""

import pytest

from exo_kit.kit.server.address import Address, AddressError, clean, origin
from exo_kit.kit.server.settings import Environment
from exo_kit.kit.settings import SettingError


@pytest.mark.parametrize(
    ("text", "url", "origin", "user"),
    [
        ("http://board:8080/", "http://board:8080", "http://board:8080", None),
        ("https://x/some/path/v1/", "https://x/some/path", "https://x", None),
        ("http://[::1]:80", "http://[::1]:80", "http://[::1]:80", None),
        ("http://me:pass@x:1/p", "http://x:1/p", "http://x:1", ("me", "pass")),
        ("http://me:p@ss@x:1", "http://x:1", "http://x:1", ("me", "p@ss")),
        ("http://me:p%40ss@x", "http://x", "http://x", ("me", "p@ss")),
    ],
)
def test_an_address_is_taken_apart(text, url, origin, user):
    address = Address.parse(text)
    assert (address.url, address.origin, address.user) == (url, origin, user)
    assert user is None or user[1] not in repr(address)


@pytest.mark.parametrize(
    "text",
    [
        "http://user:SECRET@host:99999",
        "http://user:SECRET@host:port",
        "user:SECRET@host:99999",
        "user:SEC@RET@host",
        "ftp://user:SECRET@host",
        "http://user:SEC@RET@host?key=SECRET",
        "http://host:80?key=SECRET",
        "http://host:80/path#SECRET",
        "http://user:SECRET@",
        "http://user:SECRET@ho st",
        "http://user:SECRET\\@host",
        "http://[SECRET@host",
    ],
)
def test_an_odd_address_is_refused_without_its_secrets(text):
    with pytest.raises(AddressError) as caught:
        Address.parse(text)
    assert "SEC" not in str(caught.value)
    assert "RET" not in str(caught.value)
    with pytest.raises(SettingError, match="ABC_URL") as named:
        Environment({"ABC_URL": text}, "ABC_").address("URL", "")
    assert "SEC" not in str(named.value)


def test_only_scheme_host_and_port_are_shown():
    assert origin("https://me:pass@host:1/path?key=k#f") == "https://host:1"
    assert origin("me:pass@host/path") == "host"


def test_words_come_on_one_line_and_cut():
    assert clean("a\x1b[2J\tb\u2028c\ud800") == "a [2J b c"
    assert len(clean("a" * 10_000)) == 300
