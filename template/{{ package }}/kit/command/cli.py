"""The plugin's command: `doctor`, `generate` and `bench`. None of them needs exo."""

import argparse
import asyncio
import os
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from contextlib import aclosing
from importlib.util import find_spec

from .doctor import doctor
from .session import (
    PACKAGE,
    RANDOM,
    CommandError,
    Session,
    TextStream,
    open_session,
    sentence,
    templated,
)

PROGRAM = PACKAGE.replace("_", "-")


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
        if os.environ.get("DEBUG", "0") != "0":
            traceback.print_exc()
        print(f"{PROGRAM}: {sentence(error)}", file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
