"""Where the files of a model come from."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from ...names import PACKAGE
from ..cards import Cards, Model, exo_id
from ..contract import Layers
from ..engine.thread import in_thread
from ..repository.files import downloads_folder
from .interrupt import on_exit
from .output import CommandError, printable, sentence
from .progress import Progress

_TOKENIZER = ("*.json", "*.jinja")
_REFUSALS = {  # by the name of the hub's error: where they are differs between its versions
    "GatedRepoError": "the Hugging Face hub wants a consent: accept the terms on the model's page",
    "RepositoryNotFoundError": "the Hugging Face hub has no such repository for this account",
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE keeps us from the Hugging Face hub",
    "LocalEntryNotFoundError": "the Hugging Face hub can't be reached",
}


class Files:
    """A model's files: in a folder that the user names, in exo's downloads, or on the hub."""

    def __init__(self, model: Model, progress: Progress, folder: Path | None = None) -> None:
        self.model = model
        self.given = folder is not None
        self._progress = progress
        self._folder = folder

    async def tokenizer(self) -> Path:
        """The folder with the tokenizer's files."""
        return self._folder or await self.files((), None, False)

    async def files(
        self, patterns: tuple[str, ...], layers: Layers | None, everything: bool
    ) -> Path:
        """The folder with these files and the tokenizer's; everything: exo's had not all."""
        if self._folder is None or not self.given:
            local = downloads_folder(self.model.repository)
            whole = not everything and _has(local, (*patterns, "tokenizer.json"))
            self._folder = local if whole else await self._fetch((*patterns, *_TOKENIZER))
        return self._folder

    async def _fetch(self, patterns: tuple[str, ...]) -> Path:
        """From the hub's cache, or the network. Raises CommandError."""
        name = self.model.repository
        self._progress.say(f"fetching {name}", lambda: _fetched(name))
        try:
            return await in_thread(lambda: _snapshot(name, patterns))
        except Exception as error:
            raise CommandError(
                f"{name} is not in {downloads_folder(name)}, and {_hub_says(error)}. "
                "Give --model a folder that has the model's files."
            ) from error
        finally:
            self._progress.say(f"loading {self.model.id}")


def named(models: Cards, name: str | None, progress: Progress) -> Files:
    """A folder, or a model of this plugin by its id; the engine's name behind it may be left out.

    Raises CommandError.
    """
    if name and Path(name).is_dir():
        return of_folder(Path(name), Path(name).resolve().name, progress)
    if not models:
        raise CommandError("This plugin has no models. Name at least one in models.py.")
    model_id = exo_id(name) if name is not None else next(iter(models))
    if model_id not in models:
        raise CommandError(
            f"There is no model {name!r} here, and no such folder. This plugin's models: "
            f"{', '.join(models)}."
        )
    return Files(models.by_id[model_id], progress)


def of_folder(folder: Path, name: str, progress: Progress) -> Files:
    """A Hugging Face folder that is here. Raises CommandError."""
    try:
        layers = _layers(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandError(
            f"{folder} has no config.json with num_hidden_layers ({sentence(error)}). "
            "Give --model a folder as the Hugging Face hub has it."
        ) from error
    return Files(Model(name, name, str(folder), layers), progress, folder)


def _layers(folder: Path) -> int:
    """How many layers a folder's model has; one of onnxruntime-genai has a file of its own."""
    if not (folder / "config.json").exists() and (folder / "genai_config.json").exists():
        about = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
        return int(about["model"]["decoder"]["num_hidden_layers"])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return int(config["num_hidden_layers"])


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is gone at the end, also where that is a Ctrl-C."""
    folder = Path(mkdtemp(prefix=f"{PACKAGE}-"))

    def remove() -> None:
        for _ in range(3):  # a thread may still write there
            rmtree(folder, ignore_errors=True)

    with on_exit(remove):
        yield folder


def _has(folder: Path, patterns: tuple[str, ...]) -> bool:
    """Whether a folder has a file for every pattern."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    return all(any(fnmatch(name, pattern) for name in names) for pattern in patterns)


def _snapshot(repository: str, patterns: tuple[str, ...]) -> Path:
    import huggingface_hub

    utils: Any = import_module("huggingface_hub.utils")
    utils.logging.set_verbosity_error()
    utils.disable_progress_bars()  # ours goes when the answer comes
    return Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(patterns)))


def _fetched(repository: str) -> str:
    """How much of a repository the hub's cache has."""
    cache = import_module("huggingface_hub.constants").HF_HUB_CACHE
    blobs = (Path(cache) / f"models--{repository.replace('/', '--')}" / "blobs").glob("*")
    size = sum(path.stat().st_size for path in blobs if path.exists())
    return f"{size / 1e6:,.0f} MB"


def _hub_says(error: Exception) -> str:
    """Why the hub gave nothing; its own words fill a page."""
    if import_module("huggingface_hub.constants").HF_HUB_OFFLINE:
        return _REFUSALS["OfflineModeIsEnabled"]
    for kind in type(error).__mro__:
        if kind.__name__ in _REFUSALS:
            return _REFUSALS[kind.__name__]
    first = printable(str(error)).strip().partition("\n")[0][:200] or type(error).__name__
    return f"the Hugging Face hub gave nothing ({first})"
