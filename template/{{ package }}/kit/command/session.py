"""A loaded backend, driven as exo would drive it, on one node and without exo."""

import argparse
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from traceback import extract_tb
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np

    from .tokenizer import Tokenizer

T = TypeVar("T")

PACKAGE = __name__.partition(".")[0]
RANDOM = f"{PACKAGE}.random_checkpoint"  # where a variant has it


class CommandError(RuntimeError):
    """A sentence for the user: what is wrong and what to do."""


@dataclass(frozen=True)
class LocalShard:
    """All layers of one model: what exo's `Shard` would be on a single node."""

    model_id: str
    start_layer: int
    end_layer: int
    n_layers: int

    def is_first_layer(self) -> bool:
        """Whether this shard takes token ids."""
        return self.start_layer == 0

    def is_last_layer(self) -> bool:
        """Whether this shard gives the next token."""
        return self.end_layer == self.n_layers - 1

    def get_layer_count(self) -> int:
        """How many layers this shard has."""
        return self.end_layer - self.start_layer + 1


async def settle(value: Awaitable[T] | T) -> T:
    """The result of a backend's method, which may be plain or async."""
    if inspect.isawaitable(value):
        result: T = await value
        return result
    return value


def sentence(error: BaseException) -> str:
    """An error on one line; with its kind and place where nobody meant it to be read."""
    text = " ".join(str(error).split())
    if text and isinstance(error, OSError | RuntimeError | ValueError):
        return text
    told = f"{type(error).__name__}: {text}".rstrip(": ")
    own = [f for f in extract_tb(error.__traceback__) if Path(f.filename).parent.name == PACKAGE]
    return f"{told} ({PACKAGE}/{Path(own[-1].filename).name}:{own[-1].lineno})" if own else told


@asynccontextmanager
async def at_the_end(method: Callable[..., Any], *args: Any) -> AsyncIterator[None]:
    """Give something back; where that fails too, the first error is the one that is told."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            await settle(method(*args))
        raise
    await settle(method(*args))


def repo_of(model: str) -> str:
    """The repository of a model of this plugin."""
    from .models import MODELS

    if model not in MODELS:
        known = ", ".join(MODELS) or "none"
        raise CommandError(
            f"There is no model {model!r} here, and no such folder. This plugin's models: {known}."
        )
    repo: str = next(iter(MODELS[model]["repo"].values()))
    return repo


@dataclass(frozen=True)
class Model:
    """What a backend loads. `files` is None where it brings its own."""

    shard: LocalShard
    tokenizer: Path
    files: Path | None


def known_model(model: str, needs_files: bool) -> Model:
    """A model of this plugin, from exo's downloads or the Hugging Face hub."""
    from .models import MODELS
    from .tokenizer import find_tokenizer

    repo = repo_of(model)
    layers: int = MODELS[model]["layers"]
    files = model_files(repo) if needs_files else None
    return Model(whole(model, layers), find_tokenizer(repo), files)


def folder_model(folder: Path, needs_files: bool) -> Model:
    """The model whose files are in a Hugging Face folder."""
    import json

    if not needs_files:
        raise CommandError(
            "This plugin's backend reads no files: there is no use for a folder or for random "
            "weights. Give --model one of its ids."
        )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        layers = int(config["num_hidden_layers"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandError(
            f"{folder} has no config.json with num_hidden_layers ({sentence(error)}). "
            "Give --model a folder as the Hugging Face hub has it."
        ) from error
    return Model(whole(folder.name, layers), folder, folder)


def whole(model: str, layers: int) -> LocalShard:
    """The shard of all layers of a model."""
    return LocalShard(model, 0, layers - 1, layers)


def first_model() -> str:
    """The model that is used where none is named."""
    from .models import MODELS

    if not MODELS:
        raise CommandError("This plugin has no models. Name at least one in models.py.")
    return next(iter(MODELS))


def model_files(repo: str) -> Path:
    """The folder of a repository's files: exo's downloads, or the Hugging Face hub's cache."""
    from .tokenizer import downloads_folder

    local = downloads_folder(repo)
    if (local / "config.json").is_file():
        return local
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=["*.json", "*.jinja", "*.safetensors"]))
    except Exception as error:
        raise CommandError(
            f"{repo} is not in {local}, and the Hugging Face hub gave nothing ({sentence(error)}). "
            "Give --model a folder that has the model's files."
        ) from error


def templated(arguments: argparse.Namespace, tokenizer: "Tokenizer") -> str:
    """The prompt as exo would send it: inside the model's chat template, where it has one."""
    prompt: str = arguments.prompt
    if arguments.raw or tokenizer.chat_template is None:
        return prompt
    from .chat_template import compiled, render

    messages = [{"role": "user", "content": prompt}]
    try:
        return render(compiled(tokenizer.chat_template), messages, tokenizer.special_tokens)
    except Exception as error:
        raise CommandError(
            f"The model's chat template refuses this prompt ({sentence(error)}). "
            "--raw sends it as it is."
        ) from error


def first_input(backend: Any, tokenizer: "Tokenizer", prompt: str) -> "np.ndarray":
    """The first x of a request: ids (1, S), or the UTF-8 bytes (1, N) for a `takes_text`."""
    import numpy as np

    if backend.takes_text:
        return np.frombuffer(prompt.encode("utf-8", "surrogatepass"), np.uint8).reshape(1, -1)
    return np.array([tokenizer.encode(prompt)], dtype=np.int64)


@dataclass
class Session:
    """A loaded backend, driven as exo would drive it, on one node and without exo."""

    backend: Any
    tokenizer: "Tokenizer"
    temperature: float

    async def ids(self, request_id: str, prompt: str, limit: int) -> AsyncGenerator[int, None]:
        """The ids of an answer, without the one that ends it."""
        import numpy as np

        from .contract import checked
        from .sampling import sample

        rng = np.random.default_rng()
        x = first_input(self.backend, self.tokenizer, prompt)
        async with at_the_end(self.backend.forget, request_id):
            for _ in range(limit):
                given = await settle(self.backend.forward(request_id, x))
                out = checked(given, True, self.tokenizer)
                if np.issubdtype(out.dtype, np.integer):
                    token = int(out.item())
                else:
                    token = sample(out, self.temperature, 1.0, rng)
                if token in self.tokenizer.eos_token_ids:
                    return
                yield token
                x = np.array([[token]], dtype=np.int64)


@asynccontextmanager
async def open_session(arguments: argparse.Namespace) -> AsyncIterator[Session]:
    """Load the model that the command line names, and close the backend at the end."""
    from .backend import Backend
    from .tokenizer import Tokenizer

    backend: Any = Backend()
    with chosen_model(arguments, backend.needs_files) as model:
        tokenizer = Tokenizer.from_folder(model.tokenizer)
        async with at_the_end(backend.close):
            await settle(backend.load(model.shard, model.files, tokenizer))
            yield Session(backend, tokenizer, arguments.temperature)


@contextmanager
def chosen_model(arguments: argparse.Namespace, needs_files: bool) -> Iterator[Model]:
    """The model that the command line names; one of random weights is removed at the end."""
    if getattr(arguments, "random_weights", False):
        with TemporaryDirectory(prefix=f"{PACKAGE}-") as folder:
            import_module(RANDOM).write_checkpoint(Path(folder))
            yield folder_model(Path(folder), needs_files)
        return
    name = arguments.model or first_model()
    if name and Path(name).is_dir():
        yield folder_model(Path(name), needs_files)
    else:
        yield known_model(name, needs_files)


class TextStream:
    """Text from ids as they come: a character of several tokens waits until it is whole."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self.decode = decode
        self.ids: list[int] = []
        self.shown = ""

    def feed(self, token: int) -> str:
        """What can be shown after one more id."""
        self.ids.append(token)
        text = self.decode(self.ids)
        if text.endswith("\ufffd"):
            return ""
        new = text[len(self.shown) :]
        # Keep the last id as context: many decoders treat the first token of a text differently.
        self.ids = [token]
        self.shown = self.decode(self.ids)
        if self.shown.endswith("\ufffd"):
            # Half a character can't be context; start over after it.
            self.ids, self.shown = [], ""
        return new

    def rest(self) -> str:
        """What is left at the end: a character that never became whole."""
        return self.decode(self.ids)[len(self.shown) :] if self.ids else ""
