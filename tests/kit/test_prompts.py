"""Prompts are bounded by length, by time and in number, and keep nobody waiting."""

import asyncio
import threading

import pytest

from exo_kit.kit.contract import RequestError
from exo_kit.kit.engine import prompts
from exo_kit.kit.engine.prompts import Prompts
from exo_kit.kit.text.tokenizer import TokenizerError


class Scripted:
    """A tokenizer of one id a character, which waits until it may go on."""

    def __init__(self, waits=False):
        self.may, self.texts = threading.Event(), []
        if not waits:
            self.may.set()

    def encode(self, text):
        self.texts.append(text)
        self.may.wait(30)
        if text == "panic":
            raise TokenizerError("this text can't be tokenized")
        return [ord(c) for c in text]

    encode_prompt = encode

    def decode(self, ids):
        return "".join(map(chr, ids))


@pytest.fixture
def encoder():
    made = Prompts()
    yield made
    made.stop()


async def test_a_prompt_is_encoded_and_decoded(encoder):
    tokenizer = Scripted()
    assert await encoder.encode(tokenizer, "ab") == [97, 98]
    assert await encoder.decode(tokenizer, [97, 98]) == "ab"


async def test_a_prompt_that_is_too_long_is_never_tokenized(encoder, monkeypatch):
    monkeypatch.setattr(prompts, "MOST_CHARACTERS", 10)
    tokenizer = Scripted()
    with pytest.raises(RequestError, match="too long: 11 characters, of 10 at most"):
        await encoder.encode(tokenizer, "a" * 11)
    with pytest.raises(RequestError, match="too long: 11 tokens, of 10 at most"):
        await encoder.decode(tokenizer, [1] * 11)
    assert tokenizer.texts == []


async def test_a_tokenizer_that_hangs_keeps_no_one_but_its_own_model(encoder, monkeypatch):
    monkeypatch.setattr(prompts, "SECONDS", 0.05)
    hanging = Scripted(waits=True)
    both = (encoder.encode(hanging, "a"), encoder.encode(hanging, "b"))
    for failed in await asyncio.gather(*both, return_exceptions=True):
        assert isinstance(failed, RequestError)
        assert "takes longer than" in str(failed)
    monkeypatch.setattr(prompts, "SECONDS", 30.0)
    assert await encoder.encode(Scripted(), "c") == [99]
    hanging.may.set()


async def test_few_prompts_wait_and_more_are_refused(encoder, monkeypatch):
    monkeypatch.setattr(prompts, "MOST_WAITING", 3)
    tokenizer = Scripted(waits=True)
    waiting = [asyncio.create_task(encoder.encode(tokenizer, "a")) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(RequestError, match="3 prompts wait already"):
        await encoder.encode(tokenizer, "b")
    tokenizer.may.set()
    assert await asyncio.gather(*waiting) == [[97]] * 3
    assert await encoder.encode(tokenizer, "b") == [98]


async def test_a_failed_prompt_is_its_requests_fault(encoder):
    with pytest.raises(RequestError, match="can't be tokenized"):
        await encoder.encode(Scripted(), "panic")
