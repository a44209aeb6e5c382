"""The plugin's command; all of it but `exo` needs none."""

import argparse
import asyncio
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from ...names import ENGINE_NAME, PACKAGE, PROJECT
from ..plugin import Plugin
from .interrupt import INTERRUPTED, watched
from .options import above_zero, add_sampling, from_zero, utf8
from .output import ReaderGone, sentence

# Where a variant has them.
RANDOM = f"{PACKAGE}.kit.llama.random_checkpoint"
MODELS = f"{PACKAGE}.kit.command.models"
OPS = f"{PACKAGE}.kit.command.ops"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog=PROJECT, description=f"{ENGINE_NAME}, an engine of exo, without exo."
    )
    top.add_argument("--version", action="version", version=f"{PROJECT} {_version()}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("doctor", help="say what is there and what is missing")
    commands.add_parser("exo", help="run exo 0.3 with this engine; all of exo's options follow")
    if _has(MODELS):
        commands.add_parser("models", help="say what the server has, and which models those are")
    if _has(OPS):
        import_module(OPS).add_to(commands)

    command = commands.add_parser("generate", help="answer a prompt")
    command.add_argument("prompt", type=utf8, help="what to ask")
    _add_model(command, 256)
    add_sampling(command)
    text = "end the answer before this text; can be given again (default: none)"
    command.add_argument(
        "--stop", type=utf8, action="append", default=[], metavar="TEXT", help=text
    )

    command = commands.add_parser("chat", help="answer line by line, and remember what was said")
    text = "what the model is to be, or to do (default: nothing)"
    command.add_argument("--system", type=utf8, metavar="TEXT", help=text)
    _add_model(command, 1024)
    add_sampling(command)

    command = commands.add_parser("bench", help="measure tokens a second")
    rainbow = "Explain in detail how a rainbow comes about."
    text = "what to ask (default: %(default)s)"
    command.add_argument("--prompt", type=utf8, default=rainbow, metavar="TEXT", help=text)
    text = "repeat or cut the prompt to N tokens (default: as long as it is)"
    command.add_argument("--prompt-tokens", type=above_zero, metavar="N", help=text)
    text = "how many answers to measure (default: 5, and more until they took 2 seconds)"
    command.add_argument("--runs", type=above_zero, metavar="N", help=text)
    text = "measure N answers at once too, in times of one's speed (default: one at a time)"
    command.add_argument("--at-once", type=above_zero, metavar="N", help=text)
    text = "write the figures there too (default: nowhere)"
    command.add_argument("--json", type=Path, metavar="FILE", help=text)
    _add_model(command, 64)
    return top


def _add_model(command: argparse.ArgumentParser, tokens: int) -> None:
    """What the commands that load a model have in common."""
    which = command.add_mutually_exclusive_group()
    text = "an id, or a Hugging Face folder (default: the first of this plugin's models)"
    which.add_argument("--model", metavar="ID|FOLDER", help=text)
    if _has(RANDOM):
        text = "a tiny model of random weights: noise, but no download (default: a real model)"
        which.add_argument("--random-weights", action="store_const", const=RANDOM, help=text)
    text = "send the prompt as it is (default: in the model's chat template)"
    command.add_argument("--raw", action="store_true", help=text)
    text = "the longest answer (default: %(default)s)"
    command.add_argument("--max-tokens", type=above_zero, default=tokens, metavar="N", help=text)
    text = "0 always takes the likeliest token (default: %(default)s)"
    command.add_argument("--temperature", type=from_zero, default=0.0, metavar="T", help=text)


def _has(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _version() -> str:
    try:
        return version(PROJECT)
    except PackageNotFoundError:
        return "(not installed)"


class _Log(logging.Handler):
    """Collects the errors that nobody raises, such as one of closing the device."""

    errors: list[str]

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        error = record.exc_info[1] if record.exc_info else None
        self.errors.append(record.getMessage() + (f": {sentence(error)}" if error else ""))


def main(plugin: Plugin, argv: Sequence[str] | None = None) -> int:
    """Run a plugin's command; every error is one sentence on stderr and exit code 1."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["exo"]:  # before argparse, which would read exo's options, and before our loop
        return _exo(plugin, words[1:])
    arguments = parser().parse_args(words)
    warnings.simplefilter("ignore")
    logger, log = logging.getLogger(PACKAGE), _Log(logging.ERROR)
    log.errors = []
    logger.addHandler(log)
    try:
        module = import_module(f".{arguments.command}", __package__)
        code: int = asyncio.run(watched(module.run(plugin, arguments)))
    except KeyboardInterrupt:
        return INTERRUPTED
    except ReaderGone:
        # Give Python a stdout that it can flush at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("DEBUG", "0") != "0":
            traceback.print_exc()
        return _failed(sentence(error))
    finally:
        logger.removeHandler(log)
    return _failed(log.errors[0]) if log.errors else code


def _exo(plugin: Plugin, argv: list[str]) -> int:
    """exo 0.3, with this plugin's engine in it, until it ends."""
    from ..hosts.exo_0_3.compatibility import HostError
    from ..hosts.exo_0_3.launcher import main as launch

    try:
        launch(plugin, argv)
    except HostError as error:
        return _failed(sentence(error))
    return 0


def _failed(text: str) -> int:
    print(f"{PROJECT}: {text}", file=sys.stderr)
    return 1
