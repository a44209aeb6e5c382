"""Every kind of step that tokenizers has: what it makes of a text is bounded before any text."""

import base64
import struct
import sys
from pathlib import Path

import pytest
import tokenizers
from test_tokenizer import write, write_with

from exo_kit.kit.text import tokenizer as tokenizer_module
from exo_kit.kit.text import tokenizer_bounds
from exo_kit.kit.text.tokenizer import Tokenizer, TokenizerError

# The characters that grow most in some step, and some that others are made of.
TEXTS = ["a", " ", "é", "字", "İ", "ﷺ", "\u0390", "\u1f82", "\U0001d160", "▁", "a字 İ"]


def mapped(letters: int) -> str:
    """A compiled map of characters that has one, "a", which becomes so many letters."""
    units = [0] * 512
    units[0] = 256 << 10  # where the first byte's units are
    units[256 ^ 0x61] = 1 << 10 | 1 << 8 | 0x61  # the leaf is beside it
    units[256 ^ 0x61 ^ 1] = 0  # where the text begins
    trie = struct.pack("<512I", *units)
    return base64.b64encode(struct.pack("<I", len(trie)) + trie + b"b" * letters + b"\0").decode()


REPLACE = {"pattern": {"String": "a"}, "content": "bcd"}
EMPTY = {"pattern": {"Regex": "b?"}, "content": "a"}
KINDS: dict[str, list[tuple[str, dict]]] = {
    "normalizer": [
        (
            "BertNormalizer",
            dict.fromkeys(
                ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"), True
            ),
        ),
        ("ByteLevel", {}),
        ("Lowercase", {}),
        *((form, {}) for form in ("NFC", "NFD", "NFKC", "NFKD", "Nmt", "StripAccents")),
        ("Precompiled", {"precompiled_charsmap": mapped(30)}),
        ("Prepend", {"prepend": "▁"}),
        ("Replace", REPLACE),
        ("Replace", EMPTY),
        ("Strip", {"strip_left": True, "strip_right": True}),
    ],
    "pre_tokenizer": [
        *((name, {}) for name in ("BertPreTokenizer", "UnicodeScripts", "Whitespace")),
        ("ByteLevel", {"add_prefix_space": True, "trim_offsets": True, "use_regex": True}),
        ("CharDelimiterSplit", {"delimiter": "a"}),
        ("Digits", {"individual_digits": True}),
        ("FixedLength", {"length": 1}),
        ("Metaspace", {"replacement": "▁", "prepend_scheme": "always", "split": True}),
        ("Punctuation", {"behavior": "Isolated"}),
        ("Split", {"pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}),
        ("WhitespaceSplit", {}),
    ],
    "decoder": [
        ("BPEDecoder", {"suffix": ""}),
        ("ByteFallback", {}),
        ("ByteLevel", {"add_prefix_space": True, "trim_offsets": True, "use_regex": True}),
        ("CTC", {"pad_token": "x", "word_delimiter_token": "", "cleanup": True}),
        ("Fuse", {}),
        ("Metaspace", {"replacement": "▁", "prepend_scheme": "always", "split": True}),
        ("Replace", REPLACE),
        ("Strip", {"content": "a", "start": 1, "stop": 0}),
        ("WordPiece", {"prefix": "##", "cleanup": True}),
    ],
    "post_processor": [
        ("BertProcessing", {"sep": ["</s>", 2], "cls": ["</s>", 2]}),
        ("ByteLevel", {"add_prefix_space": True, "trim_offsets": True, "use_regex": True}),
        (
            "RobertaProcessing",
            {
                "sep": ["</s>", 2],
                "cls": ["</s>", 2],
                "trim_offsets": True,
                "add_prefix_space": True,
            },
        ),
        ("TemplateProcessing", {"single": [], "pair": [], "special_tokens": {}}),
    ],
}
MODULES = {
    "normalizer": tokenizers.normalizers,
    "pre_tokenizer": tokenizers.pre_tokenizers,
    "decoder": tokenizers.decoders,
    "post_processor": tokenizers.processors,
}
EACH = [
    pytest.param(part, {"type": kind} | members, id=f"{part}-{kind}-{n}")
    for part, kinds in KINDS.items()
    for n, (kind, members) in enumerate(kinds)
    if hasattr(MODULES[part], kind)
]


def test_every_kind_of_the_library_is_here():
    for part, module in MODULES.items():
        classes = [each for each in vars(module).values() if isinstance(each, type)]
        [base] = [each for each in classes if each.__base__ is object and each.__subclasses__()]
        names = {each.__name__ for each in classes if each.__base__ is base} - {"Sequence"}
        assert names, part
        assert names <= {kind for kind, _ in KINDS[part]}, part


def sequence(part, step, count):
    name = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}
    return {part: {"type": "Sequence", name.get(part, "processors"): [step] * count}}


def grows(fast, part):
    """The most that a part makes out of one byte, in these texts."""

    def result(text):
        if part == "normalizer":
            return len(fast.normalizer.normalize_str(text).encode())
        if part == "pre_tokenizer":
            return sum(len(piece) for piece, _ in fast.pre_tokenizer.pre_tokenize_str(text))
        return len(fast.decoder.decode([text]).encode())

    return max(result(text) / len(text.encode()) for text in TEXTS)


def loaded(folder):
    """The tokenizer of a folder, or None where its growth is refused, with a sentence."""
    refused = None
    try:
        return Tokenizer.from_folder(folder)
    except TokenizerError as error:
        refused = str(error)
    assert "bytes out of one" in refused
    return None


@pytest.mark.parametrize(("part", "step"), EACH)
def test_what_a_step_makes_of_a_text_is_counted(tmp_path, part, step):
    folder = write_with(tmp_path, **{part: step})
    tokenizer = Tokenizer.from_folder(folder)
    if part == "post_processor":
        assert tokenizer.encode("hello") == [0]
        return
    for count in (1, 2, 3):
        if (tokenizer := loaded(write_with(tmp_path, **sequence(part, step, count)))) is None:
            return
        bounds = tokenizer.bounds
        bound = {"normalizer": bounds.normalized, "pre_tokenizer": bounds.pieces}
        assert grows(tokenizer.fast, part) <= bound.get(part, bounds.decoded)


@pytest.mark.parametrize(("part", "step"), EACH)
def test_two_dozen_of_a_step_are_harmless_or_refused(tmp_path, part, step):
    if tokenizer := loaded(write_with(tmp_path, **sequence(part, step, 26))):
        bounds = tokenizer.bounds
        assert bounds.normalized * bounds.pieces * bounds.decoded == 1
        tokenizer.encode("hello world")
        assert isinstance(tokenizer.decode([0, 1, 2]), str)


@pytest.mark.parametrize("size", [1, 10**9])
def test_added_tokens_are_bounded_before_the_load_normalizes_them(tmp_path, monkeypatch, size):
    """26 doublings of one letter were gigabytes, before any text and any look at the steps."""
    monkeypatch.setattr(tokenizer_module, "SMALL_FILE", size)
    token = {"id": 5, "content": "é", "special": False, "normalized": True}
    token |= dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    steps = sequence("normalizer", {"type": "ByteLevel"}, 26)
    with pytest.raises(TokenizerError, match="bytes out of one"):
        Tokenizer.from_folder(write_with(tmp_path, added_tokens=[token], **steps))
    steps = sequence("normalizer", {"type": "ByteLevel"}, 10)
    many = [token | {"id": 5 + n, "content": f"é{n}" * 20} for n in range(100)]
    with pytest.raises(TokenizerError, match="its added tokens may become"):
        Tokenizer.from_folder(write_with(tmp_path, added_tokens=many, **steps))


def test_steps_within_steps_are_counted(tmp_path):
    for part, name in (("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers")):
        step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
        for _ in range(4):
            step = {"type": "Sequence", name: [step] * 2}
        with pytest.raises(TokenizerError, match="bytes out of one"):
            Tokenizer.from_folder(write_with(tmp_path / part, **{part: step}))
    many = sequence("normalizer", {"type": "Nmt"}, 100)
    with pytest.raises(TokenizerError, match="has 100 steps"):
        Tokenizer.from_folder(write_with(tmp_path, **many))


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"type": "BPE", "continuing_subword_prefix": "#" * 1000}, "has 1000 characters"),
        ({"type": "BPE", "end_of_word_suffix": "#" * 1000}, "has 1000 characters"),
        ({"type": "WordPiece", "max_input_chars_per_word": 10**6}, "models have 100"),
        ({"type": "BPE", "vocab": {"a" * 5000: 0}}, "a token of 5000 characters"),
        ({"type": "Unigram", "unk_id": 0, "vocab": [["a" * 5000, 0.0]]}, "a token of 5000"),
    ],
)
def test_a_model_whose_pieces_have_no_bound_is_refused(tmp_path, model, sentence):
    usual = {"merges": [], "vocab": {"a": 0}}
    if model["type"] == "WordPiece":
        usual = {"vocab": {"a": 0}, "unk_token": "a", "continuing_subword_prefix": "##"}
    folder = write_with(tmp_path, model=usual | model, added_tokens=[])
    with pytest.raises(TokenizerError, match=sentence):
        Tokenizer.from_folder(folder)


def test_a_decoders_expression_can_take_no_time(tmp_path):
    step = {"type": "Replace", "content": ""}
    write_with(tmp_path, decoder=step | {"pattern": {"Regex": "(o+)+$"}})
    with pytest.raises(TokenizerError, match="may take any time"):
        Tokenizer.from_folder(tmp_path)
    write_with(tmp_path, decoder=step | {"pattern": {"Regex": "\u2581"}})
    Tokenizer.from_folder(tmp_path)


def test_a_long_text_is_refused_by_what_it_becomes(tmp_path, monkeypatch):
    """What it may become is looked up where it could be too much: most texts become no more."""
    monkeypatch.setattr(tokenizer_module, "MOST_PIECES", 1000)
    monkeypatch.setattr(tokenizer_module, "MOST_DECODED", 1000)
    tokenizer = Tokenizer.from_folder(write_with(tmp_path, normalizer={"type": "NFKC"}))
    assert len(tokenizer.encode("hello " * 166)) == 166
    assert tokenizer.encode("ﷺ" * 30)
    for text in ("hello " * 167, "ﷺ" * 31):
        with pytest.raises(TokenizerError, match="makes more than 1000 bytes of it"):
            tokenizer.encode(text)
    assert len(tokenizer.decode([0] * 40).split()) == 40
    with pytest.raises(TokenizerError, match="these 60 ids are more than 1000 bytes"):
        tokenizer.decode([0] * 60)


def test_a_large_file_is_loaded_in_a_process_of_its_own_first(tmp_path, monkeypatch):
    folder = write_with(tmp_path, normalizer={"type": "NFKC"})
    here = Tokenizer.from_folder(folder).bounds
    monkeypatch.setattr(tokenizer_module, "SMALL_FILE", 100)
    assert Tokenizer.from_folder(folder).bounds == here
    write_with(tmp_path, **sequence("normalizer", {"type": "ByteLevel"}, 26))
    with pytest.raises(TokenizerError, match="bytes out of one"):
        Tokenizer.from_folder(folder)
    (folder / "tokenizer.json").write_text("[" * 1000)
    with pytest.raises(TokenizerError):
        Tokenizer.from_folder(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux alone")
def test_what_ends_that_process_is_a_sentence(tmp_path, monkeypatch):
    """Pieces that have nothing in common: a node of a tree for each of their characters."""
    source = Path(tokenizer_bounds.__file__).read_text(encoding="utf-8")
    text = source.replace("MEMORY = 4 << 30", "MEMORY = 300 << 20")
    assert text != source
    (tmp_path / "bounds.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(tokenizer_module, "_CHILD", tmp_path / "bounds.py")
    folder = write(tmp_path / "model", config={"eos_token_id": 0})
    vocab = [[f"{i:04}" * 300, 0.0] for i in range(4000)]
    model = {"type": "Unigram", "unk_id": 0, "vocab": vocab}
    write_with(folder, model=model)
    with pytest.raises(TokenizerError, match="takes more memory or time than any model's"):
        Tokenizer.from_folder(folder)
