"""A folder with a tokenizer of five words, as a repository has it."""

import json

import tokenizers

WORDS = {"a": 0, "b": 1, "<s>": 2, "</s>": 3, "[UNK]": 4}


def write(folder, post=None, **named):
    """A folder with a tokenizer of five words, and JSON files by their names without .json."""
    folder.mkdir(parents=True, exist_ok=True)
    fast = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, unk_token="[UNK]"))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast.add_special_tokens(["<s>", "</s>"])
    fast.post_processor = post
    fast.save(str(folder / "tokenizer.json"))
    for name, content in named.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
