"""Where a model's files are, and the only module that fetches any.

exo's downloads come first, then the Hugging Face hub's cache, then the hub.
"""

import os
from collections.abc import Sequence
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

from .facts import Facts, RepositoryError

# What a tokenizer is made of, and what facts.py reads beside it.
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "config.json",
    "genai_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
# Mistral's repositories have every weight a second time, in a layout that nothing here reads.
_TWICE = ("consolidated*",)
_REFUSALS = {  # by the name of the hub's error: where they are differs between its versions
    "GatedRepoError": "the Hugging Face hub wants a consent: accept the terms on the model's page",
    "RepositoryNotFoundError": "the Hugging Face hub has no such repository for this account",
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE keeps us from the Hugging Face hub",
    "LocalEntryNotFoundError": "the Hugging Face hub can't be reached",
}


def exo_home() -> Path:
    """Where exo keeps what is not configuration."""
    home = os.environ.get("EXO_HOME")
    return Path(home) if home else Path.home() / ".cache" / "exo"


def downloads_folder(repository: str) -> Path:
    """Where exo 0.0 keeps a repository's files (exo/download/new_shard_download.py)."""
    return exo_home() / "downloads" / repository.replace("/", "--")


def has(folder: Path, patterns: Sequence[str]) -> bool:
    """Whether a folder has a file for every pattern; links are followed."""
    return all(any(path.is_file() for path in folder.glob(pattern)) for pattern in patterns)


def tokenizer_here(repository: str) -> Path | None:
    """The folder with a repository's tokenizer, where it is on this machine."""
    local = downloads_folder(repository)
    if (local / "tokenizer.json").is_file():
        return local
    cached = _cached(repository, "tokenizer.json")
    return cached.parent if cached else None


def find_tokenizer(repository: str) -> Path:
    """The folder with a repository's tokenizer, fetched where it is not here: its files only.

    HF_HUB_OFFLINE is honoured. Raises RepositoryError.
    """
    local = downloads_folder(repository)
    if (local / "tokenizer.json").is_file():
        return local
    try:
        folder = fetch(repository, TOKENIZER)
    except RepositoryError as error:
        raise RepositoryError(
            f"no tokenizer for {repository}: {local} has none, and {error}. Put the model's "
            f"tokenizer.json and tokenizer_config.json into {local}"
        ) from error
    if not (folder / "tokenizer.json").is_file():
        raise RepositoryError(f"{repository} has no tokenizer.json{_instead(repository)}")
    return folder


def find_layers(repository: str) -> int:
    """How many layers a repository's config.json says, of the smallest fetch; 0 where none can be
    had."""
    try:
        local = downloads_folder(repository)
        folder = local if (local / "config.json").is_file() else fetch(repository, ("config.json",))
        return Facts(folder).layers
    except (OSError, RepositoryError):
        return 0


def fetch(repository: str, patterns: Sequence[str], to: Path | None = None) -> Path:
    """The folder with these files of a repository: the hub's cache, or `to`.

    Raises RepositoryError, whose text fits behind "…, and".
    """
    place = {} if to is None else {"local_dir": to}
    try:
        hub: Any = import_module("huggingface_hub")
        utils: Any = import_module("huggingface_hub.utils")
        utils.logging.set_verbosity_error()
        utils.disable_progress_bars()  # ours goes when the answer comes, and a node's log has none
        folder = hub.snapshot_download(
            repository, allow_patterns=list(patterns), ignore_patterns=list(_TWICE), **place
        )
    except Exception as error:  # the hub's own kinds, whose text fills a page
        raise RepositoryError(_refusal(error)) from error
    return Path(folder) if to is None else to


def hub_bytes(repository: str, patterns: Sequence[str]) -> int:
    """How much the hub has of these files of a repository. Raises RepositoryError."""
    try:
        api: Any = import_module("huggingface_hub").HfApi()
        listed = api.model_info(repository, files_metadata=True).siblings or []
    except Exception as error:  # the hub's own kinds
        raise RepositoryError(f"{repository} can't be fetched: {_refusal(error)}") from error
    matches = [file for file in listed if any(fnmatch(file.rfilename, p) for p in patterns)]
    return sum(file.size or 0 for file in matches)


def fetched_bytes(repository: str) -> int:
    """How much of a repository the hub's cache has."""
    blobs = (_cache_of(repository) / "blobs").glob("*")
    return sum(path.stat().st_size for path in blobs if path.exists())


def _cache_of(repository: str) -> Path:
    cache: Any = import_module("huggingface_hub.constants").HF_HUB_CACHE
    return Path(cache) / f"models--{repository.replace('/', '--')}"


def _cached(repository: str, name: str) -> Path | None:
    """A file in the hub's cache."""
    if not _cache_of(repository).is_dir():
        return None  # what looks further takes half a second to import
    path: Any = import_module("huggingface_hub").try_to_load_from_cache(repository, name)
    return Path(path) if isinstance(path, str) else None


def _instead(repository: str) -> str:
    """What a repository has in place of a tokenizer.json, as far as the hub says it."""
    try:
        names = import_module("huggingface_hub").list_repo_files(repository)
    except Exception:  # it is only said
        return ""
    known = ("tekken.json", "tokenizer.model", "vocab.json")
    there = [name for name in known if name in names]
    return (f", and has {there[0]}" if there else "") + (
        "; take a repository that has one, or make it with transformers: "
        "AutoTokenizer.from_pretrained(ID).save_pretrained(FOLDER)"
    )


def _refusal(error: Exception) -> str:
    """Why the hub gave nothing."""
    if import_module("huggingface_hub.constants").HF_HUB_OFFLINE:
        return _REFUSALS["OfflineModeIsEnabled"]
    for kind in type(error).__mro__:
        if kind.__name__ in _REFUSALS:
            return _REFUSALS[kind.__name__]
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"the Hugging Face hub gave nothing ({lines[0][:200]})"
