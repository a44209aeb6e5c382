"""Where a model's files are: in exo's downloads, or on the Hugging Face hub."""

import os
from pathlib import Path

from ..text.tokenizer import TokenizerError

_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


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
