"""Where the files of a model come from."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from ...names import PACKAGE
from ..cards import Cards, Model, exo_id
from ..contract import Layers
from ..engine.thread import in_thread
from ..repository.facts import Facts, RepositoryError
from ..repository.files import downloads_folder, fetch, fetched_bytes, has
from .interrupt import on_exit
from .output import CommandError, printable, sentence
from .progress import Progress

_TOKENIZER = ("*.json", "*.jinja")


class Files:
    """A model's files: in a folder that the user names, in exo's downloads, or on the hub."""

    def __init__(self, model: Model, progress: Progress, folder: Path | None = None) -> None:
        self.model = model
        self.given = folder is not None
        self._progress = progress
        self._folder = folder

    @property
    def name(self) -> str:
        """What every message calls the model: its id in exo, or its folder's name."""
        return self.model.id if self.given else exo_id(self.model.id)

    async def tokenizer(self) -> Path:
        """The folder with the tokenizer's files."""
        return self._folder or await self.files((), None, False)

    async def files(
        self, patterns: tuple[str, ...], layers: Layers | None, everything: bool
    ) -> Path:
        """The folder with these files and the tokenizer's; everything: exo's had not all."""
        if self._folder is None or not self.given:
            local = downloads_folder(self.model.repository)
            whole = not everything and has(local, (*patterns, "tokenizer.json"))
            self._folder = local if whole else await self._fetch((*patterns, *_TOKENIZER))
        return self._folder

    async def _fetch(self, patterns: tuple[str, ...]) -> Path:
        """From the hub's cache, or the network. Raises CommandError."""
        name = self.model.repository

        def size() -> str:
            return f"{fetched_bytes(name) / 1e6:,.0f} MB"

        self._progress.say(f"fetching {name}", size)
        try:
            return await in_thread(lambda: fetch(name, patterns))
        except RepositoryError as error:
            raise CommandError(
                f"{name} is not in {downloads_folder(name)}, and {printable(str(error))}. "
                "Give --model a folder that has the model's files."
            ) from error
        finally:
            self._progress.say(f"loading {self.name}")


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
        layers = Facts(folder).layers
    except (OSError, RepositoryError) as error:
        raise CommandError(sentence(error)) from error
    return Files(Model(name, name, str(folder), layers), progress, folder)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is gone at the end, also where that is a Ctrl-C."""
    folder = Path(mkdtemp(prefix=f"{PACKAGE}-"))

    def remove() -> None:
        for _ in range(3):  # a thread may still write there
            rmtree(folder, ignore_errors=True)

    with on_exit(remove):
        yield folder
