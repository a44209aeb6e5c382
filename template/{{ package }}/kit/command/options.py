"""What the command line takes: values that are checked before anything is loaded."""

import argparse
import json
from pathlib import Path
from typing import Any


def above_zero(text: str) -> int:
    """A whole number above zero."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("give a whole number above 0")
    return int(text)


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError("give a whole number") from None


def from_zero(text: str) -> float:
    """A number that is not negative."""
    if not 0 <= (value := _number(text)) < float("inf"):  # which NaN isn't either
        raise argparse.ArgumentTypeError("give a number from 0 on")
    return value


def positive(text: str) -> float:
    """A number above zero."""
    if not 0 < (value := _number(text)) < float("inf"):
        raise argparse.ArgumentTypeError("give a number above 0")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    if not 0 <= (value := _number(text)) <= 1:
        raise argparse.ArgumentTypeError("give a number from 0 to 1")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0


def utf8(text: str) -> str:
    """A text that can be encoded: bytes that are no UTF-8 come as lone surrogates."""
    if text.encode("utf-8", "replace").decode() != text:
        raise argparse.ArgumentTypeError("this is no valid text in UTF-8")
    return text


def tools(name: str) -> list[dict[str, Any]]:
    """A JSON file's tools, as OpenAI's API has them; a list of bare functions will do."""
    try:
        content = json.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{name} can't be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{name} is no JSON ({error})") from None
    entries = content.get("tools") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not all(_named(tool) for tool in entries):
        raise argparse.ArgumentTypeError(
            f'{name} has no list of tools, each {{"type": "function", "function": {{"name": ...}}}}'
        )
    return [t if "function" in t else {"type": "function", "function": t} for t in entries]


def _named(tool: Any) -> bool:
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def add_sampling(command: argparse.ArgumentParser) -> None:
    """How the tokens of an answer are chosen, and what the model may do."""

    def add(name: str, kind: Any, letter: str, text: str, default: Any = None) -> None:
        command.add_argument(name, type=kind, metavar=letter, help=text, default=default)

    add("--seed", whole, "N", "the same answer each time (default: another each time)")
    text = "choose among the N likeliest tokens, 0: among all (default: %(default)s)"
    add("--top-k", whole, "N", text, 0)
    text = "choose among the likeliest tokens that together have this share (default: %(default)s)"
    add("--top-p", share, "P", text, 1.0)
    text = "leave out tokens below this share of the likeliest one's (default: %(default)s)"
    add("--min-p", share, "P", text, 0.0)
    text = "above 1: what has come becomes less likely (default: %(default)s)"
    add("--repetition-penalty", positive, "R", text, 1.0)
    text = "a JSON file with tools that the model may call (default: none)"
    add("--tools", tools, "FILE", text)
    text = "have the model answer at once (default: it reasons where its chat template says so)"
    command.add_argument(
        "--no-thinking", dest="thinking", action="store_const", const=False, help=text
    )
