"""Text of ids as they come: together it is what decoding all ids gives, for every decoder."""

import random
from types import SimpleNamespace

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from exo_kit.kit.text.detokenizer import MOST_HELD, Detokenizer, StopTexts, byte_tokens

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SPACED = ["▁", "▁▁", "▁▁▁▁", "▁Hello", "▁world", "a", "b", "!", "日", "本", "▁é"]
LEVEL = sorted(pre_tokenizers.ByteLevel.alphabet())
PARTS = ["hello", "##ing", ".", ",", "'", "n't", "do", "not", "日", "##本", "a", "##b"]


def tokenizer(vocabulary, decoder):
    ids = {token: number for number, token in enumerate(vocabulary)}
    made = Tokenizer(models.WordLevel(ids, unk_token=vocabulary[0]))
    made.decoder = decoder
    return made


def sequence(*steps):
    return decoders.Sequence(list(steps))


SPACES = decoders.Replace("▁", " ")
TOKENIZERS = {
    "byte fallback": tokenizer(
        [*BYTES, *SPACED],
        sequence(SPACES, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)),
    ),
    "byte fallback, nothing stripped": tokenizer(
        [*BYTES, *SPACED], sequence(SPACES, decoders.ByteFallback(), decoders.Fuse())
    ),
    "byte level": tokenizer(LEVEL, decoders.ByteLevel()),
    "metaspace": tokenizer(SPACED, decoders.Metaspace()),
    "metaspace, first": tokenizer(SPACED, decoders.Metaspace(prepend_scheme="first")),
    "word piece": tokenizer(PARTS, decoders.WordPiece()),
    "word piece, as it is": tokenizer(PARTS, decoders.WordPiece(cleanup=False)),
    "suffix": tokenizer(["a</w>", "b", "c</w>", "日</w>", "é"], decoders.BPEDecoder()),
    "three blanks stripped": tokenizer(
        SPACED, sequence(SPACES, decoders.Fuse(), decoders.Strip(" ", 3, 0))
    ),
    "ctc": tokenizer(["<pad>", "a", "b", "|"], decoders.CTC()),
    "blanks in front of full stops and commas": tokenizer(
        [*SPACED, "▁.", ".", ","],
        sequence(SPACES, decoders.Fuse(), decoders.Replace(" .", "."), decoders.Replace(" ,", ",")),
    ),
    "longer than what it replaces": tokenizer(
        ["a", "b", " "], sequence(decoders.Fuse(), decoders.Replace("ab", "xyz"))
    ),
    "left out": tokenizer(["a", "b", "c"], sequence(decoders.Fuse(), decoders.Replace("abc", ""))),
    "byte level, real marks": tokenizer([*LEVEL, "ï¿½"], decoders.ByteLevel()),
    "several blanks as one": tokenizer(
        ["a", " ", "b"], sequence(decoders.Fuse(), decoders.Replace(Regex(" +"), " "))
    ),
    "fused alone": tokenizer(["a", " ", "日"], decoders.Fuse()),
}


class Counting:
    """A tokenizer that counts the ids that it decodes."""

    def __init__(self, fast):
        self.fast, self.decoded = fast, 0

    def decode(self, ids):
        self.decoded += len(ids)
        return self.fast.decode(ids, skip_special_tokens=False)


def streamed(fast, pieces, cut=False):
    stream = Detokenizer.of(Counting(fast))
    return "".join([stream.feed(piece) for piece in pieces]) + stream.rest(cut)


def ids_of(fast, text):
    """A text's ids, one a byte."""
    vocabulary = fast.get_vocab()
    if "<0x00>" in vocabulary:
        return [vocabulary[f"<0x{byte:02X}>"] for byte in text.encode()]
    parts = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    return [LEVEL.index(letter) for part, _ in parts for letter in part]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("seed", range(10))
def test_the_streamed_text_is_the_whole_text(name, seed):
    fast, draw = TOKENIZERS[name], random.Random(seed)
    for length in (1, 2, 5, 20, 100, 300):
        ids = []
        while len(ids) < length:
            if name.startswith("byte") and draw.random() < 0.2:
                ids += ids_of(fast, draw.choice(["🙂", "日本", "é!"]))
            else:
                ids.append(draw.randrange(fast.get_vocab_size()))
        pieces, at = [], 0
        while at < len(ids):
            pieces.append(ids[at : at + draw.choice([1, 1, 2, 9])])
            at += len(pieces[-1])
        assert streamed(fast, pieces) == fast.decode(ids, skip_special_tokens=False)


def test_a_word_behind_an_emoji_keeps_its_space():
    fast = TOKENIZERS["byte fallback"]
    ids = [fast.token_to_id("▁Hello"), *ids_of(fast, " 🙂"), fast.token_to_id("▁world")]
    assert streamed(fast, [[token] for token in ids]) == "Hello 🙂 world"


@pytest.mark.parametrize("name", ["byte level", "byte fallback"])
def test_a_limit_within_a_character_leaves_it_out(name):
    fast = TOKENIZERS[name]
    ids = ids_of(fast, "a日🙂")
    for left in (1, 2, 3):
        assert streamed(fast, [[token] for token in ids[:-left]], cut=True) == "a日"
        assert streamed(fast, [ids[:-left]], cut=True) == "a日"
    assert streamed(fast, [ids], cut=True) == "a日🙂"


def test_whole_characters_are_shown_at_once():
    stream = Detokenizer.of(Counting(TOKENIZERS["byte level"]))
    texts = [stream.feed([token]) for token in ids_of(TOKENIZERS["byte level"], "a🙂b")]
    assert texts == ["a", "", "", "", "🙂", "b"]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_work_of_an_id_is_bounded_whatever_comes(name):
    fast = TOKENIZERS[name]
    for token in (0, fast.get_vocab_size() - 1, fast.token_to_id("<0xF0>") or LEVEL.index("ð")):
        counting = Counting(fast)
        stream = Detokenizer.of(counting)
        for _ in range(2000):
            stream.feed([token if token < fast.get_vocab_size() else 0])
            assert len(stream._ids) <= MOST_HELD + 100
        assert counting.decoded <= 2000 * 100


def test_a_run_of_bytes_that_never_ends_is_shown_in_whole_characters():
    fast = TOKENIZERS["byte fallback"]
    text = "日本" * 200
    stream = Detokenizer.of(Counting(fast))
    texts = [stream.feed([token]) for token in ids_of(fast, text)]
    assert "".join(texts) + stream.rest() == text
    assert sum(map(bool, texts)) >= 3


def test_a_tokenizer_that_is_not_known_has_no_bytes():
    assert not byte_tokens(SimpleNamespace())(3)


@pytest.mark.parametrize("size", [1, 2, 5, 50])
def test_a_stop_text_is_found_however_it_comes(size):
    text = "one two three"
    stop = StopTexts(["two", "", "xyz"])
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    assert "".join(stop.feed(part) for part in parts) + stop.rest() == "one "
    assert stop.found
