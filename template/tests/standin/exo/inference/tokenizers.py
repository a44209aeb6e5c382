"""How the API gets a model's tokenizer, and its fault: it is loaded anew for every request."""

from os import PathLike
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer


async def resolve_tokenizer(repo_id: str | PathLike[str]) -> Any:
    """The tokenizer of a folder; exo looks for one among its downloads first."""
    return await _resolve_tokenizer(repo_id)


async def _resolve_tokenizer(repo_id_or_local_path: str | PathLike[str]) -> Any:
    return Tokenizer.from_file(str(Path(repo_id_or_local_path) / "tokenizer.json"))
