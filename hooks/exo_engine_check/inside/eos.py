"""A checkpoint whose end token has the id 0, for as long as a block runs."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def _token_of_zero(tokenizer: dict[str, Any]) -> str | None:
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    for token in tokenizer.get("added_tokens", ()):
        if token.get("id") == 0:
            return str(token["content"])
    if isinstance(vocabulary, dict):
        return next((name for name, number in vocabulary.items() if number == 0), None)
    return str(vocabulary[0][0]) if vocabulary else None


@contextlib.contextmanager
def with_eos_of_zero(folder: Path) -> Iterator[bool]:
    """Change the files of a model in the Hugging Face form; gives whether there are such files."""
    files = {
        name: folder / f"{name}.json"
        for name in ("tokenizer", "tokenizer_config", "generation_config", "config")
    }
    kept = {path: path.read_bytes() for path in files.values() if path.is_file()}
    token = None
    if files["tokenizer"] in kept:
        with contextlib.suppress(ValueError, AttributeError, KeyError, TypeError):
            token = _token_of_zero(json.loads(kept[files["tokenizer"]]))
    if token is None:
        yield False
        return
    try:
        for name, value in (("tokenizer_config", token), ("generation_config", 0), ("config", 0)):
            content = json.loads(kept.get(files[name], b"{}"))
            content["eos_token" if isinstance(value, str) else "eos_token_id"] = value
            if files[name] in kept or name == "tokenizer_config":
                files[name].write_text(json.dumps(content), encoding="utf-8")
        yield True
    finally:
        for path, content in kept.items():
            path.write_bytes(content)
        if files["tokenizer_config"] not in kept:
            files["tokenizer_config"].unlink(missing_ok=True)
