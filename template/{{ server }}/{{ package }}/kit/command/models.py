"""`models`: what the server has, which of this plugin's models that is, and lines for the rest."""

import argparse
import json
import re
from contextlib import suppress
from functools import partial
from typing import Any, cast

from ...names import PACKAGE
from ..cards import Cards
from ..engine.thread import in_thread
from ..plugin import Plugin
from ..repository.files import find_layers
from ..server.client import ServerError
from ..server.models import Served, choose_model
from .output import printable

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_UNKNOWN = "  # write its tokenizer's repository, and how many layers it has"


async def run(plugin: Plugin, _: argparse.Namespace) -> int:
    """Ask the server, and tell."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    backend: Any = cast(Any, plugin.load_backend())()
    try:
        served: list[Served] = await backend.names()
    finally:
        await backend.close()
    names, table, lines = (
        matches(plugin.models, served),
        Table("the server's model", "this plugin's"),
        [],
    )
    for model in served:
        fitting = ", ".join(names[model.name])
        table.add_row(escape(printable(model.name)), escape(fitting) or "[yellow]none[/]")
        if not fitting:
            lines.append(await in_thread(partial(line, model)))
    console = Console()
    console.print(table)
    if lines:
        output = [f"For MODELS in {PACKAGE}/models.py:", "", *lines]
        console.print("\n".join(output), markup=False, highlight=False, soft_wrap=True)
    return 0


def matches(models: Cards, served: list[Served]) -> dict[str, list[str]]:
    """Of each of the server's names, the ids of the models that would be asked of it."""
    names: dict[str, list[str]] = {model.name: [] for model in served}
    for model in models.table:
        with suppress(ServerError):
            names[choose_model(model, list(names), None, "")].append(model.id)
    return names


def line(model: Served) -> str:
    """A line of the table for a model; its layers are looked up where its repository is known."""
    named = [name for name in (model.root, model.name) if _REPOSITORY.fullmatch(name)]
    layers = next(((name, count) for name in named if (count := find_layers(name))), None)
    repository = layers[0] if layers else next(iter(named), f"owner/{_last(model)}")
    slug = re.sub(r"[^a-z0-9.]+", "-", _last(model).lower()).strip("-.") or "model"
    words = ", ".join(json.dumps(word) for word in (slug, _last(model), repository))
    return f"    Model({words}, {layers[1] if layers else 0}),{'' if layers else _UNKNOWN}"


def _last(model: Served) -> str:
    """The last part of a name that may be a path; it stands in somebody's Python."""
    return re.sub(r"[^\w.-]+", "-", model.name.rstrip("/").rsplit("/", 1)[-1])[:80]
