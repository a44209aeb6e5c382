"""EX4: the model cards."""

import re
from collections.abc import Iterator
from typing import Any

from .. import host
from ..evaluate import UnknownError, value_of
from ..findings import Check, Finding, Place, reports
from ..plugin import EntryPoint, Plugin
from ..source import Module

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?\Z", re.ASCII)


class Models(Check):
    family = "exo-models"


def _dicts(plugin: Plugin) -> Iterator[tuple[EntryPoint, Module, dict[Any, Any]]]:
    """Each dict of model cards whose value can be told from the source."""
    for entry in plugin.in_group(host.GROUP_MODELS):
        target = plugin.target(entry)
        if target.module is None or target.definition is None:
            continue
        try:
            value = value_of(plugin.package, target.module, entry.attribute)
        except UnknownError:
            continue
        if isinstance(value, dict):
            yield entry, target.definition.module, value


def _cards(plugin: Plugin) -> Iterator[tuple[str, Any, Place]]:
    for entry, module, cards in _dicts(plugin):
        for model_id, card in cards.items():
            yield str(model_id), card, _place(plugin, entry, module, str(model_id))


def _place(plugin: Plugin, entry: EntryPoint, module: Module, model_id: str) -> Place:
    """The line that spells most of a model id, else the line of the whole dict."""
    for length in range(len(model_id), 2, -1):
        if line := module.texts.get(model_id[:length]):
            return Place(module.path, line)
    definition = plugin.target(entry).definition
    return definition.place if definition else Place(module.path)


class EX401(Models):
    "Every model card has layers and repo"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo reads `card["layers"]` and `card["repo"]` (models.py:258,265). A card without them is
        never offered; one that is no dict ends every request for it. Write
        `{"layers": 32, "repo": {"MyInferenceEngine": "organization/model"}}`.
        """
        for entry, _, cards in _dicts(exo_plugin):
            definition = exo_plugin.target(entry).definition
            if not cards and definition is not None:
                yield Finding(definition.place, f"{entry} has no models")
        for model_id, card, place in _cards(exo_plugin):
            if not isinstance(card, dict):
                yield Finding(place, f"the card of {model_id} is no dict")
                continue
            for key in ("layers", "repo"):
                if key not in card:
                    yield Finding(place, f"the card of {model_id} has no {key}")


class EX402(Models):
    "layers is a positive integer"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo compares it with 1 and splits the model by it (models.py:265-268, 273): less than 1
        hides the model, and a text is a TypeError. Write the number of transformer layers.
        """
        for model_id, card, place in _cards(exo_plugin):
            layers = card.get("layers", 1) if isinstance(card, dict) else 1
            if isinstance(layers, bool) or not isinstance(layers, int) or layers < 1:
                yield Finding(place, f"{model_id} has {layers!r} layers")


class EX403(Models):
    "repo is keyed by the class of the plugin's engine"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo asks a card for `repo[engine.__class__.__name__]` (models.py:258), not for the name of
        the entry point. A card without that key has no model for the engine, and the request ends
        with "Unsupported model". Use the class's name.
        """
        engines = exo_plugin.engine_names
        for model_id, card, place in _cards(exo_plugin):
            repo = card.get("repo") if isinstance(card, dict) else None
            if repo is None or not engines:
                continue
            if not isinstance(repo, dict):
                yield Finding(place, f"the repo of {model_id} is no dict")
            elif not engines & repo.keys():
                keys = ", ".join(map(str, repo)) or "nothing"
                wanted = " or ".join(sorted(engines))
                yield Finding(place, f"the repo of {model_id} is keyed by {keys}, not by {wanted}")


class EX404(Models):
    "repo names a repository"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo downloads from it and reads the tokenizer there (models.py:258, tokenizers.py:44). It is
        `organization/name` of the Hugging Face hub, no address and no path.
        """
        for model_id, card, place in _cards(exo_plugin):
            repo = card.get("repo") if isinstance(card, dict) else None
            for engine, name in repo.items() if isinstance(repo, dict) else ():
                if engine in exo_plugin.engine_names and not (
                    isinstance(name, str) and _REPOSITORY.match(name)
                ):
                    yield Finding(place, f"{model_id} has the repository {name!r}")


class EX405(Models):
    "No model id is one of exo's own"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo puts the plugin's cards over its own with `dict.update` (models.py:168): the card of exo
        is lost, and its engines lose the model. Give the id a suffix of the engine's.
        """
        for model_id, _, place in _cards(exo_plugin):
            if model_id in host.MODEL_IDS:
                yield Finding(place, f"exo has a model {model_id} of its own")


class EX406(Models):
    "Pretty names and models match"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo has no entry point for pretty names (models.py:172), so a plugin adds them by id: a name
        without a model shows nothing, and a model without a name shows its id. Keep both dicts in
        step.
        """
        found = list(_dicts(exo_plugin))
        known = {model_id for _, _, cards in found for model_id in cards}
        complete = len(found) == len(exo_plugin.in_group(host.GROUP_MODELS))
        for entry, module, cards in found:
            pretty = _pretty_names(exo_plugin, module, known)
            for name, ids in pretty.items() if complete else ():
                for model_id in ids - known:
                    place = _place(exo_plugin, entry, module, str(model_id))
                    yield Finding(place, f"{name} has {model_id}, which is no model")
            for model_id in cards.keys() - set().union(*pretty.values()) if pretty else ():
                place = _place(exo_plugin, entry, module, str(model_id))
                yield Finding(place, f"{' and '.join(pretty)} has no name for {model_id}")


def _pretty_names(plugin: Plugin, module: Module, known: set[Any]) -> dict[str, set[Any]]:
    """The ids in each dict of pretty names; nothing where one of them can't be told."""
    found: dict[str, set[Any]] = {}
    for name in [name for name in module.names if "PRETTY" in name.upper()]:
        try:
            value = value_of(plugin.package, module, name)
        except UnknownError:
            return {}
        if isinstance(value, dict):
            found[name] = set(value)
    theirs = {name: ids for name, ids in found.items() if ids & known}
    return theirs or {n: ids for n, ids in found.items() if n.upper().endswith("PRETTY_NAMES")}
