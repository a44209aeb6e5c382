"""The plugin's command: `doctor`, `generate` and `bench`. None of them needs exo."""

import argparse
import asyncio
import inspect
import os
import sys
import time
import warnings
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np

    from .tokenizer import Tokenizer

T = TypeVar("T")

PACKAGE = __name__.partition(".")[0]
PROGRAM = PACKAGE.replace("_", "-")
RANDOM = f"{PACKAGE}.random_checkpoint"  # where a variant has it
GROUPS = ("exo.inference_engines", "exo.models", "exo.device_detectors")
GET_EXO = 'pip install "exo @ git+https://github.com/jfreed-dev/exo-rkllama"'
OK, NOTE, FAIL = "ok", "note", "fail"


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


@dataclass(frozen=True)
class Finding:
    """One row of `doctor`. `advice` says what to do about a row that is not ok."""

    check: str
    state: str
    text: str
    advice: str = ""


async def settle(value: Awaitable[T] | T) -> T:
    """The result of a backend's method, which may be plain or async."""
    if inspect.isawaitable(value):
        result: T = await value
        return result
    return value


def sentence(error: BaseException) -> str:
    """An error on one line, named by its type where it has no text of its own."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyError) or not text:
        return f"{type(error).__name__}: {text}".rstrip(": ")
    return text


# --- doctor ---------------------------------------------------------------------------------------


def check_device() -> Finding:
    """What this machine's hardware is, as far as the plugin can see."""
    from .detection import detect_device

    device = detect_device()
    if device:
        return Finding("device", OK, device)
    return Finding(
        "device", NOTE, "none found here", "This is fine where the device is on another machine."
    )


async def check_backend() -> Finding:
    """What the backend says of its device or server. Loads no model."""
    try:
        from .backend import Backend

        backend: Any = Backend()
        try:
            return Finding("backend", OK, await settle(backend.check()))
        finally:
            await settle(backend.close())
    except Exception as error:
        return Finding("backend", FAIL, "not usable", sentence(error))


def check_exo() -> Finding:
    """Which `exo` this environment has: PyPI's package of that name is another project."""
    try:
        spec = find_spec("exo")
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return Finding("exo", FAIL, "not installed", f"Install exo with: {GET_EXO}")
    try:
        discovery = find_spec("exo.inference.plugin_discovery")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("exo"):
            advice = f"Install what exo needs, or exo again with: {GET_EXO}"
            return Finding("exo", FAIL, f"incomplete: {sentence(error)}", advice)
        discovery = None
    except Exception as error:
        advice = f"Install exo again with: {GET_EXO}"
        return Finding("exo", FAIL, f"does not import: {sentence(error)}", advice)
    if discovery is None:
        advice = (
            "This 'exo' has no plugin support (the one on PyPI is another project). "
            f"Remove it with `pip uninstall exo`, then: {GET_EXO}"
        )
        return Finding("exo", FAIL, "a wrong 'exo'", advice)
    return Finding("exo", OK, "with plugin support")


def check_entry_points(exo: bool) -> Finding:
    """Whether the installed metadata leads exo to this package, and exo really takes it."""
    ours = {group: [p for p in entry_points(group=group) if owned(p.module)] for group in GROUPS}
    missing = [group for group, points in ours.items() if not points]
    if missing:
        advice = "Install this plugin where exo is installed: pip install -e . in its folder."
        return Finding("entry points", FAIL, f"missing: {', '.join(missing)}", advice)
    names = sorted({point.name for points in ours.values() for point in points})
    if exo:
        taken = [point.name for point in ours[GROUPS[0]] if not exo_takes(point.name)]
        if taken:
            advice = "exo has another engine of this name: choose another name in pyproject.toml."
            return Finding("entry points", FAIL, f"hidden by exo: {', '.join(taken)}", advice)
    return Finding("entry points", OK, f"{', '.join(names)} in {len(GROUPS)} groups")


def owned(module: str) -> bool:
    """Whether a dotted module name belongs to this package."""
    return module.partition(".")[0] == PACKAGE


def exo_takes(name: str) -> bool:
    """Whether exo's own discovery leads `name` to this package."""
    from exo.inference.plugin_discovery import discover_inference_engines

    found: Any = discover_inference_engines()
    return name in found and owned(found[name][0])


def check_models(exo: bool) -> Finding:
    """Whether the plugin's models are where exo looks them up."""
    from .models import MODELS

    count = f"{len(MODELS)} of this plugin"
    if not MODELS:
        return Finding("models", FAIL, "none", "Name at least one model in models.py.")
    if not exo:
        return Finding("models", OK, count)
    try:
        from exo.models import model_cards
    except Exception as error:
        return Finding("models", FAIL, "exo's list does not import", sentence(error))
    hidden = [model for model in MODELS if repo_of(model) not in repos(model_cards.get(model))]
    if hidden:
        advice = f"exo has no such model for this engine: {', '.join(hidden)}. Use other ids."
        return Finding("models", FAIL, f"{count}, {len(hidden)} not in exo", advice)
    return Finding("models", OK, f"{count}, all known to exo")


def repos(card: Any) -> list[str]:
    """The repositories of one of exo's model cards."""
    return list(card["repo"].values()) if card else []


def check_tokenizers() -> Finding:
    """For which models a tokenizer is on this machine. Downloads nothing."""
    from .models import MODELS

    with offline():
        from .tokenizer import TokenizerError, find_tokenizer

        found = []
        for model in MODELS:
            try:
                find_tokenizer(repo_of(model))
            except (TokenizerError, OSError):
                continue
            found.append(model)
    if found:
        return Finding("tokenizer", OK, f"here for {', '.join(found)}")
    advice = "A model's tokenizer is downloaded at its first use; that needs the network."
    return Finding("tokenizer", NOTE, f"here for none of {len(MODELS)} models", advice)


@contextmanager
def offline() -> Iterator[None]:
    """Keep the Hugging Face hub from the network for a while."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


async def doctor(_: argparse.Namespace) -> int:
    """Say what is there and what is missing; 0 when exo can answer with this plugin."""
    from rich.console import Console
    from rich.table import Table

    exo = check_exo()
    right = exo.state == OK
    findings = [
        guarded("device", check_device),
        await check_backend(),
        exo,
        guarded("entry points", lambda: check_entry_points(right)),
        guarded("models", lambda: check_models(right)),
        guarded("tokenizer", check_tokenizers),
    ]
    colours = {OK: "green", NOTE: "yellow", FAIL: "red"}
    table = Table("check", "", "found")
    for row in findings:
        table.add_row(row.check, f"[{colours[row.state]}]{row.state}[/]", escaped(row.text))
    console = Console()
    console.print(table)
    for row in findings:
        if row.advice:
            line = f"{row.check}: {row.advice}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    return int(any(row.state == FAIL for row in findings))


def guarded(check: str, find: Callable[[], Finding]) -> Finding:
    """The finding, or the error that kept us from it: a doctor never falls over."""
    try:
        return find()
    except Exception as error:
        return Finding(check, FAIL, "the check failed", sentence(error))


def escaped(text: str) -> str:
    """Text in which rich sees no markup."""
    from rich.markup import escape

    return escape(text)


# --- generate and bench ---------------------------------------------------------------------------


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
        raise CommandError("This plugin's backend reads no files. Give --model one of its ids.")
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

    local = downloads_folder() / repo.replace("/", "--")
    if any(local.glob("*.safetensors")):
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

        from .sampling import sample

        rng = np.random.default_rng()
        x = first_input(self.backend, self.tokenizer, prompt)
        try:
            for _ in range(limit):
                out = np.asarray(await settle(self.backend.forward(request_id, x)))
                if np.issubdtype(out.dtype, np.integer):
                    token = int(out.reshape(-1)[-1])
                else:
                    # (1, S, V): the last position's logits are the next token's.
                    token = sample(out[:, -1:, :], self.temperature, 1.0, rng)
                if token in self.tokenizer.eos_token_ids:
                    return
                yield token
                x = np.array([[token]], dtype=np.int64)
        finally:
            await settle(self.backend.forget(request_id))


@asynccontextmanager
async def open_session(arguments: argparse.Namespace) -> AsyncIterator[Session]:
    """Load the model that the command line names, and close the backend at the end."""
    from .backend import Backend
    from .tokenizer import Tokenizer

    backend: Any = Backend()
    with chosen_model(arguments, backend.needs_files) as model:
        tokenizer = Tokenizer.from_folder(model.tokenizer)
        try:
            await settle(backend.load(model.shard, model.files, tokenizer))
            yield Session(backend, tokenizer, arguments.temperature)
        finally:
            await settle(backend.close())


@contextmanager
def chosen_model(arguments: argparse.Namespace, needs_files: bool) -> Iterator[Model]:
    """The model that the command line names; one of random weights is removed at the end."""
    if getattr(arguments, "random_weights", False):
        with TemporaryDirectory(prefix=f"{PROGRAM}-") as folder:
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


async def generate(arguments: argparse.Namespace) -> int:
    """Answer one prompt, text as it comes."""
    async with open_session(arguments) as session:
        tokenizer = session.tokenizer
        prompt = templated(arguments, tokenizer)
        stream = TextStream(tokenizer.decode)
        async with aclosing(session.ids("generate", prompt, arguments.max_tokens)) as ids:
            async for token in ids:
                show(stream.feed(token))
        show(stream.rest() + "\n")
    return 0


def show(text: str) -> None:
    """Text to stdout at once; what the terminal can't spell is replaced."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()


async def bench(arguments: argparse.Namespace) -> int:
    """Tokens a second of prefill and of decode, the median of some runs after a warm-up."""
    from statistics import median

    async with open_session(arguments) as session:
        prompt = templated(arguments, session.tokenizer)
        length = len(session.tokenizer.encode(prompt))
        await timed(session, prompt, 2)
        runs = [await timed(session, prompt, arguments.max_tokens) for _ in range(arguments.runs)]
    first = median(run[0] for run in runs)
    print(f"prefill {length / first:10.1f} tokens/s  ({length} tokens, {first * 1e3:.1f} ms)")
    rates = [(count - 1) / seconds for _, seconds, count in runs if count > 1 and seconds > 0]
    if rates:
        tokens = sum(run[2] for run in runs)
        print(f"decode  {median(rates):10.1f} tokens/s  ({tokens} tokens in {len(runs)} runs)")
    else:
        print("decode  not measured: the answer has one token; ask something longer.")
    return 0


async def timed(session: Session, prompt: str, limit: int) -> tuple[float, float, int]:
    """One answer: seconds to the first token, seconds from there to the last, tokens."""
    start = time.perf_counter()
    first = last = start
    count = 0
    async with aclosing(session.ids("bench", prompt, limit)) as ids:
        async for _ in ids:
            last = time.perf_counter()
            first = first if count else last
            count += 1
    if not count:
        raise CommandError("The model answered nothing. Give `bench` another --prompt.")
    return first - start, last - first, count


# --- command line ---------------------------------------------------------------------------------


def positive(text: str) -> int:
    """A whole number above zero."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog=PROGRAM, description="An inference engine plugin of exo.")
    commands = top.add_subparsers(dest="command", required=True)
    command = commands.add_parser("doctor", help="say what is there and what is missing")
    command.set_defaults(run=doctor)

    command = commands.add_parser("generate", help="answer a prompt without exo")
    command.add_argument("prompt")
    model_options(command, 256)
    command.set_defaults(run=generate)

    command = commands.add_parser("bench", help="measure tokens a second")
    command.add_argument("--prompt", default="Explain in detail how a rainbow comes about.")
    command.add_argument("--runs", type=positive, default=3)
    model_options(command, 64)
    command.set_defaults(run=bench)
    return top


def model_options(command: argparse.ArgumentParser, tokens: int) -> None:
    """The options of the commands that load a model."""
    command.add_argument(
        "--model",
        metavar="ID|FOLDER",
        help="an id, or a Hugging Face folder; default: the first of this plugin's models",
    )
    if find_spec(RANDOM):
        text = "a tiny model of random weights, made on the spot: noise, but no download"
        command.add_argument("--random-weights", action="store_true", help=text)
    command.add_argument("--raw", action="store_true", help="don't use the chat template")
    command.add_argument("--max-tokens", type=positive, default=tokens, metavar="N")
    command.add_argument("--temperature", type=float, default=0.0, metavar="T")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; every error is one sentence on stderr and exit code 1."""
    arguments = parser().parse_args(argv)
    warnings.simplefilter("ignore")
    try:
        code: int = asyncio.run(arguments.run(arguments))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader is gone; give Python a stdout that it can flush at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        print(f"{PROGRAM}: {sentence(error)}", file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
