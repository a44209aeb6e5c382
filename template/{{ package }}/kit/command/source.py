"""Where the files of a model come from."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from ..core.contract import Layers
from ..core.models import Model
from ..core.runner import Source
from ..core.tokenizer import downloads_folder
from ..core.worker import in_thread
from ..hosts.cards import BY_ID, exo_id
from ..names import PACKAGE
from .ending import undone
from .progress import Progress
from .telling import CommandError, printable, sentence

_TOKENIZER = ("*.json", "*.jinja")


@asynccontextmanager
async def chosen(
    name: str | None, random: str | None, progress: Progress
) -> AsyncIterator[Source]:
    """The model that the command line names.

    random: the module that makes a model of random weights, which is removed at the end.
    """
    if random:
        folder = Path(mkdtemp(prefix=f"{PACKAGE}-"))
        with undone(lambda: _remove(folder)):
            await in_thread(lambda: import_module(random).write_checkpoint(folder))
            yield FolderSource(folder, "random weights")
        return
    if not BY_ID:
        raise CommandError("This plugin has no models. Name at least one in models.py.")
    if name and Path(name).is_dir():
        yield FolderSource(Path(name), Path(name).resolve().name)
    elif model := BY_ID.get(exo_id(name) if name else next(iter(BY_ID))):
        yield HubSource(model, progress)
    else:
        raise CommandError(
            f"There is no model {name!r} here, and no such folder. This plugin's models: "
            f"{', '.join(BY_ID)}."
        )


def _remove(folder: Path) -> None:
    for _ in range(3):  # a thread may still write there
        rmtree(folder, ignore_errors=True)


class FolderSource:
    """A Hugging Face folder that is here."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            layers = int(config["num_hidden_layers"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CommandError(
                f"{folder} has no config.json with num_hidden_layers ({sentence(error)}). "
                "Give --model a folder as the Hugging Face hub has it."
            ) from error
        self.model = Model(name, name, str(folder), layers)

    async def tokenizer(self) -> Path:
        """The folder."""
        return self._folder

    async def files(self, patterns: tuple[str, ...], layers: Layers, everything: bool) -> Path:
        """The folder."""
        return self._folder


class HubSource:
    """A model of this plugin: in exo's downloads, or on the Hugging Face hub."""

    def __init__(self, model: Model, progress: Progress) -> None:
        self.model = model
        self._progress = progress
        self._fetched: Path | None = None

    async def tokenizer(self) -> Path:
        """The folder with the tokenizer's files."""
        if self._fetched is not None and (self._fetched / "tokenizer.json").is_file():
            return self._fetched
        local = downloads_folder(self.model.repository)
        if (local / "tokenizer.json").is_file():
            return local
        return await self._fetch(_TOKENIZER)

    async def files(self, patterns: tuple[str, ...], layers: Layers, everything: bool) -> Path:
        """The folder with these files; everything: exo's downloads had not all."""
        local = downloads_folder(self.model.repository)
        if not everything and local.is_dir():
            names = [path.relative_to(local).as_posix() for path in local.rglob("*")]
            if all(any(fnmatch(name, pattern) for name in names) for pattern in patterns):
                return local
        self._fetched = await self._fetch((*patterns, *_TOKENIZER))
        return self._fetched

    async def _fetch(self, patterns: tuple[str, ...]) -> Path:
        """From the hub's cache, or the network. Raises CommandError."""
        repository = self.model.repository
        self._progress.say(f"fetching {repository}", lambda: _fetched_size(repository))
        try:
            return await in_thread(lambda: _snapshot(repository, patterns))
        except Exception as error:
            raise CommandError(
                f"{repository} is not in {downloads_folder(repository)}, and "
                f"{_hub_says(error)}. Give --model a folder that has the model's files."
            ) from error
        finally:
            self._progress.say(f"loading {self.model.id}")


def _snapshot(repository: str, patterns: tuple[str, ...]) -> Path:
    import huggingface_hub as hub

    hub.logging.set_verbosity_error()
    hub.utils.disable_progress_bars()  # ours goes when the answer comes
    return Path(hub.snapshot_download(repository, allow_patterns=list(patterns)))


def _fetched_size(repository: str) -> str:
    """How much of a repository the hub's cache has."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "blobs"
    size = 0
    for path in folder.glob("*"):
        try:
            size += path.stat().st_size
        except OSError:  # just renamed: it is whole
            continue
    return f"{size / 1e6:,.0f} MB"


def _hub_says(error: Exception) -> str:
    """Why the hub gave nothing; its own words fill a page."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        return "the Hugging Face hub wants a consent first: accept the model's terms on its page"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the Hugging Face hub has no such repository, or shows it to its members only"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE keeps us from the Hugging Face hub, whose cache has it not whole"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "the Hugging Face hub can't be reached"
    first = printable(str(error)).strip().partition("\n")[0][:200] or type(error).__name__
    return f"the Hugging Face hub gave nothing ({first})"
