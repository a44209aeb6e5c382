"""A model's tokenizer, without transformers and without remote code."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tokenizers

_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


class TokenizerError(RuntimeError):
    """A model's tokenizer is missing or unusable."""


@dataclass(frozen=True)
class Tokenizer:
    """What exo asks of `engine.tokenizer`, over the `tokenizers` library.

    `eos_token_id` is the id that exo compares with (the one of tokenizer_config.json, as
    transformers has it); `eos_token_ids` are all the ids that end an answer.
    """

    folder: Path
    fast: "tokenizers.Tokenizer"
    eos_token_id: int
    eos_token_ids: frozenset[int]
    chat_template: str | None
    special_tokens: dict[str, str]

    @classmethod
    def from_folder(cls, folder: Path) -> "Tokenizer":
        """Read a Hugging Face folder. Raises TokenizerError."""
        import tokenizers

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise TokenizerError(f"{folder} has no tokenizer.json; download the model's tokenizer")
        try:
            fast = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:
            raise TokenizerError(f"{path} is no tokenizer that can be read: {error}") from error
        config = _read_json(folder / "tokenizer_config.json")
        special = _special_tokens(_read_json(folder / "special_tokens_map.json") | config)
        eos = _eos_ids(folder, fast, special)
        return cls(folder, fast, eos[0], frozenset(eos), _chat_template(folder, config), special)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that already has its special tokens."""
        ids: list[int] = self.fast.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Any) -> str:
        """The text of token ids, (S,) or a list; special tokens are kept."""
        return self.fast.decode([int(i) for i in ids], skip_special_tokens=False)


def find_tokenizer(repo: str) -> Path:
    """The folder with a repository's tokenizer: exo's downloads first, then the Hugging Face hub.

    Fetches the tokenizer's files only; HF_HUB_OFFLINE is honoured. Raises TokenizerError.
    """
    local = downloads_folder(repo)
    if (local / "tokenizer.json").is_file():
        return local
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=list(_FILES)))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise TokenizerError(
            f"no tokenizer for {repo}: {local} has none and the Hugging Face hub gave none "
            f"({reason}). Put the model's tokenizer.json and tokenizer_config.json into {local}"
        ) from error


def downloads_folder(repo: str) -> Path:
    """Where exo keeps a repository's files (exo/download/new_shard_download.py)."""
    home = os.environ.get("EXO_HOME")
    downloads = (Path(home) if home else Path.home() / ".cache" / "exo") / "downloads"
    return downloads / repo.replace("/", "--")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TokenizerError(
            f"{path} is not JSON: {error}; delete it and download it again"
        ) from error
    return content if isinstance(content, dict) else {}


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """bos_token, eos_token and their like; each is a text or an object with `content`."""
    found = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    return found


def _eos_ids(folder: Path, fast: "tokenizers.Tokenizer", special: dict[str, str]) -> list[int]:
    """Every EOS id, the one that exo's API compares with first."""
    named = fast.token_to_id(special["eos_token"]) if "eos_token" in special else None
    ids = [] if named is None else [named]
    for name in ("generation_config.json", "config.json"):
        value = _read_json(folder / name).get("eos_token_id")
        ids += [i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int)]
    if not ids:
        raise TokenizerError(
            f"{folder} names no end-of-sequence token; set eos_token in tokenizer_config.json"
        )
    return list(dict.fromkeys(ids))


def _chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    """The template's text; a list of named templates gives the one called default."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        template = {t["name"]: t["template"] for t in template}.get("default")
    return template if isinstance(template, str) else None
