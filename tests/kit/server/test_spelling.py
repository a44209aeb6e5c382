"""Text in any pieces becomes ids that decode to exactly that text."""

import logging
from collections.abc import Callable, Iterator
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import pytest
import tokenizers_for_tests as made
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, WordLevel

from exo_kit.kit.hosts.exo_0_0 import retokenizer as retokenizer_module
from exo_kit.kit.hosts.exo_0_0.retokenizer import Retokenizer, SpellingError
from exo_kit.kit.hosts.exo_0_0.vocabulary import build_table
from exo_kit.kit.text.tokenizer import TokenizerError

MAKERS: dict[str, Callable[[Path], Tokenizer]] = {
    "byte_level_bpe": made.byte_level_bpe,
    "bos_adding": made.bos_adding,
    "sentencepiece_style": made.sentencepiece_style,
}
TEXTS = (
    "  the  answer\n\n",
    "\U0001f468\u200d\U0001f469e\u0301\u00e9 你",
    "<|im_end|> <|eot_id|>",
    "</s><s><unk><0x41>",
    "▁the ▁Ġ the",
    "\x00\ufffd\ud800\t ",
)


@pytest.fixture(scope="module", params=sorted(MAKERS))
def fast(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """One tokenizer of each kind, read from its file as the engine reads it."""
    folder = tmp_path_factory.mktemp(request.param)
    MAKERS[request.param](folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def retokenizer(fast: Tokenizer) -> Retokenizer:
    return Retokenizer(fast)


def metaspace(scheme: str, letters: str = "") -> Tokenizer:
    """A tokenizer with a Metaspace decoder and no byte pieces."""
    pieces = ["<unk>", *(chr(code) for code in range(0x21, 0x7F)), "▁", "▁the", "▁a▁b", *letters]
    fast = Tokenizer(WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    fast.decoder = decoders.Metaspace(prepend_scheme=scheme)
    fast.add_special_tokens([AddedToken("<unk>", special=True)])
    return fast


def decode(fast: Tokenizer, ids: list[int]) -> str:
    return fast.decode(ids, skip_special_tokens=False)


def without_surrogates(text: str) -> str:
    return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)


def cuts(text: str) -> Iterator[list[str]]:
    """Every cut into up to three pieces, empty ones too, and one piece a character."""
    for first, second in combinations_with_replacement(range(len(text) + 1), 2):
        yield [text[:first], text[first:second], text[second:]]
    yield list(text)


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_from_any_pieces(
    fast: Tokenizer, retokenizer: Retokenizer, text: str
) -> None:
    added = set(fast.get_added_tokens_decoder())
    for deltas in cuts(text):
        spelling = retokenizer.start()
        parts = [spelling.feed(delta) for delta in deltas]
        assert [bool(ids) for ids in parts] == [bool(delta) for delta in deltas]  # none held back
        ids = [token_id for ids in parts for token_id in ids]
        assert not added.intersection(ids)
        assert decode(fast, ids) == without_surrogates(text)


def test_answers_do_not_share_state(fast: Tokenizer, retokenizer: Retokenizer) -> None:
    first, second = retokenizer.start(), retokenizer.start()
    first.feed("x")
    assert decode(fast, second.feed(" the answer")) == " the answer"


def test_long_pieces_are_used(fast: Tokenizer, retokenizer: Retokenizer) -> None:
    spelling = retokenizer.start()
    spelling.feed("x")
    assert len(spelling.feed(" hello world")) == 2


def test_real_pieces_are_preferred_to_bytes(tmp_path: Path) -> None:
    fast = made.sentencepiece_style(tmp_path)
    ids = Retokenizer(fast).start().feed("Aé\n")
    assert [fast.id_to_token(token_id) for token_id in ids] == ["A", "é", "<0x0A>"]


def test_a_special_token_in_the_text_stays_text(fast: Tokenizer, retokenizer: Retokenizer) -> None:
    for token in fast.get_added_tokens_decoder().values():
        ids = retokenizer.start().feed(token.content)
        assert fast.decode(ids, skip_special_tokens=True) == token.content


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
@pytest.mark.parametrize("text", [" the", "the", "  the", " a b", "x a b", " "])
def test_metaspace(scheme: str, text: str) -> None:
    fast = metaspace(scheme)
    retokenizer = Retokenizer(fast)
    assert decode(fast, retokenizer.start().feed(text)) == text
    spelling = retokenizer.start()
    assert decode(fast, [i for char in text for i in spelling.feed(char)]) == text


def test_an_unknown_character_is_encoded_alone_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fast = metaspace("never")
    spelling = Retokenizer(fast).start()
    with caplog.at_level(logging.WARNING, logger=retokenizer_module.__name__):
        ids = [*spelling.feed("a你b"), *spelling.feed("好")]
    assert decode(fast, ids) == "a<unk>b<unk>"
    assert len(caplog.records) == 1


def test_an_unsupported_decoder_is_refused() -> None:
    fast = metaspace("never")
    fast.decoder = decoders.WordPiece()
    with pytest.raises(TokenizerError, match="WordPiece"):
        Retokenizer(fast)


def test_no_decoder_is_refused() -> None:
    with pytest.raises(TokenizerError, match="none"):
        Retokenizer(Tokenizer(WordLevel({"a": 0}, unk_token="a")))


def test_a_decoder_that_changes_text_is_refused() -> None:
    fast = metaspace("never")
    fast.decoder = decoders.Sequence([decoders.Metaspace(), decoders.Strip("x", 1, 0)])
    with pytest.raises(TokenizerError, match="changes text"):
        Retokenizer(fast)


def test_a_vocabulary_without_letters_is_refused() -> None:
    fast = Tokenizer(BPE(vocab={"a": 0, "Ġ": 1}, merges=[]))
    fast.decoder = decoders.ByteLevel()
    with pytest.raises(TokenizerError, match="no piece for 93 of the 95 bytes"):
        Retokenizer(fast)


def byte_level_without(*missing: str, pieces: tuple[str, ...] = ()) -> Tokenizer:
    """A byte-level tokenizer that lacks some bytes, as published ones do."""
    alphabet = [c for c in sorted(pre_tokenizers.ByteLevel.alphabet()) if c not in missing]
    fast = Tokenizer(BPE({piece: i for i, piece in enumerate([*alphabet, *pieces])}, []))
    fast.decoder = decoders.ByteLevel()
    return fast


ESC, CR, LF = "ě", "č", "Ċ"  # as byte-level pieces spell 0x1B, 0x0D and 0x0A


def test_only_an_answer_that_needs_a_missing_byte_fails() -> None:
    fast = byte_level_without(ESC, "ñ")  # 0xF1 leads characters that nobody has assigned
    spelling = Retokenizer(fast).start()
    text = "plain text, h\u00e9 \u4f60\u597d \U0001f642\n"
    assert decode(fast, spelling.feed(text)) == text
    with pytest.raises(SpellingError, match="0x1B, for which the model's vocabulary has no token"):
        spelling.feed("red \x1b[31m")
    assert decode(fast, spelling.feed("goes on")) == "goes on"


def test_a_missing_byte_is_said_by_a_longer_piece() -> None:
    fast = byte_level_without(CR, LF, pieces=("x" + CR, CR + LF, "y" + LF))
    spelling = Retokenizer(fast).start()
    for text in ("a\r\n", "x\r", "x\r\n", "y\n\r\n"):  # the longest first would miss "x\r\n"
        assert decode(fast, spelling.feed(text)) == text
    with pytest.raises(SpellingError, match="0x0D"):
        spelling.feed("a\r")


def test_each_answer_is_spelled_by_itself(tmp_path: Path) -> None:
    fast = made.byte_level_bpe(tmp_path)
    retokenizer = Retokenizer(fast)
    first, second = retokenizer.start(), retokenizer.start()
    assert decode(fast, [*first.feed(" <|im_"), *first.feed("end|>")]) == " <|im_end|>"
    assert decode(fast, second.feed("other")) == "other"


def test_text_is_never_encoded(fast: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoding a piece of text alone adds BOS, spaces and normal forms."""

    class NoEncode:
        def __getattr__(self, name: str) -> Any:
            assert name not in {"encode", "encode_batch"}
            return getattr(fast, name)

    retokenizer = Retokenizer(NoEncode())  # type: ignore[arg-type]  # all of it that is used
    assert decode(fast, retokenizer.start().feed(" <s> hé 你")) == " <s> hé 你"


def test_a_letter_whose_one_piece_is_an_end_token_is_spelt(tmp_path):
    fast = made.byte_level_bpe(tmp_path)
    token_id = fast.token_to_id("!")
    fast.add_special_tokens([AddedToken("!", special=True, normalized=False)])
    assert build_table(fast).single(ord("!")) == token_id
