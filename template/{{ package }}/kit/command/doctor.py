"""`doctor`: what an installed plugin has around it, and what is missing. Needs no exo."""

import argparse
from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from inspect import isawaitable
from typing import Any, NamedTuple

from ...names import PACKAGE, PROJECT
from .. import settings
from ..hosts.exo_0_3.compatibility import GET_EXO as GET_EXO_0_3
from ..plugin import Plugin
from .output import CommandError, printable, sentence

GROUPS = ("exo.inference_engines", "exo.models", "exo.device_detectors")
# Not the newest: this commit was tested, and nobody can make another of it.
EXO_COMMIT = "0c831d39a0c42772aa68df9bacd6af8c8bd3cd84"
GET_EXO = f'pip install "exo @ git+https://github.com/jfreed-dev/exo-rkllama@{EXO_COMMIT}"'
GET_EITHER = f"{GET_EXO_0_3}, on Python 3.13; `{PROJECT} exo` starts it. exo 0.0: {GET_EXO}"
DISCOVERY = "exo.inference.plugin_discovery"  # exo 0.0's
OK, NOTE, FAIL = "ok", "note", "fail"
_COLOURS = {OK: "green", NOTE: "yellow", FAIL: "red"}


class Result(NamedTuple):
    """One row. `advice` says what to do where it is not ok."""

    text: str
    state: str = OK
    advice: str = ""


def check_device(_: Plugin) -> Result:
    """What this machine's hardware is, as far as the plugin can see."""
    detectors = _ours("exo.device_detectors")
    if not detectors:
        return Result("no detector is installed", NOTE, "The row of the entry points says more.")
    device: Any = detectors[0].load()()
    if device is None:
        advice = "This is fine where the device is on another machine."
        return Result("none found here", NOTE, advice)
    if not isinstance(device, str):
        raise CommandError(f"detect_device() gives {device!r}; it gives a name or None")
    return Result(device)


async def check_backend(plugin: Plugin) -> Result:
    """What the backend says of its device or server. Loads no model."""
    from ..engine.executor import Executor
    from ..engine.support import Support

    try:
        backend = plugin.load_backend()
        executor = Executor(backend)
        line = await executor.check()
        lacks = str(Support(getattr(backend, "unsupported", None), executor.answers))
        return Result(f"{line}; {lacks}" if lacks else line)
    except Exception as error:
        return Result("not usable", FAIL, sentence(error))


def check_exo(_: Plugin) -> Result:
    """Which `exo` this environment has: PyPI's package of that name is another project."""
    if _has("exo.worker.runner.bootstrap"):
        return _exo_0_3()
    try:
        import_module(DISCOVERY)
    except ModuleNotFoundError as error:
        if error.name == "exo":
            return Result("not installed", FAIL, GET_EITHER)
        if (error.name or "").startswith("exo."):
            advice = "This 'exo' has no plugin support (the one on PyPI is another project). "
            advice += f"Remove it with `pip uninstall exo`. {GET_EITHER}"
            return Result("a wrong 'exo'", FAIL, advice)
        advice = f"Install what exo needs, or exo again with: {GET_EXO}"
        return Result(f"incomplete: {sentence(error)}", FAIL, advice)
    except Exception as error:
        return Result("does not import", FAIL, f"{sentence(error)}. Install it with: {GET_EXO}")
    return Result("with plugin support")


def _has(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except Exception:  # whatever a foreign module called exo does at its import
        return False


def _exo_0_3() -> Result:
    """Whether exo 0.3 is as this plugin knows it, and what is changed in it."""
    from ..hosts.exo_0_3.compatibility import HostError, require

    try:
        require()
    except HostError as error:
        return Result("0.3, but not as this plugin knows it", FAIL, sentence(error))
    advice = f"Start it with `{PROJECT} exo`. In its processes alone, that changes where a model's "
    advice += "process begins, where cards are read, who downloads this plugin's models, and how "
    advice += "their answers fail."
    if port := settings.whole("METRICS_PORT"):
        advice += f" Metrics are on 127.0.0.1, from port {port} on, one port an instance."
    return Result("0.3, as this plugin knows it", OK, advice)


def _models_0_3(plugin: Plugin) -> Result:
    """Which models are whole on this machine, as exo 0.3 is told."""
    from ..hosts.exo_0_3.cards import offers

    offered = offers(plugin)
    lacks = [f"{offer.name}: not here: {offer.missing}." for offer in offered if offer.missing]
    text = f"{len(offered)} for exo 0.3, {len(offered) - len(lacks)} of them here"
    return Result(text, OK if len(lacks) < len(offered) else NOTE, " ".join(lacks))


def check_entry_points(plugin: Plugin) -> Result:
    """Whether the installed metadata leads exo to this package, and exo really takes it."""
    ours = {group: _ours(group) for group in GROUPS}
    if missing := [group for group, points in ours.items() if not points]:
        advice = "Install this plugin where exo is installed: pip install -e . in its folder."
        return Result(f"missing: {', '.join(missing)}", FAIL, advice)
    if _has(DISCOVERY) and check_exo(plugin).state == OK:
        if taken := [point.name for point in ours[GROUPS[0]] if not _is_taken_by_exo(point)]:
            advice = "exo has another engine of this name: choose another name in pyproject.toml."
            return Result(f"hidden by exo: {', '.join(taken)}", FAIL, advice)
        for point in ours[GROUPS[0]]:
            point.load()
    names = sorted({point.name for points in ours.values() for point in points})
    return Result(f"{', '.join(names)} in {len(GROUPS)} groups")


def _ours(group: str) -> list[EntryPoint]:
    return [p for p in entry_points(group=group) if p.module.partition(".")[0] == PACKAGE]


def _is_taken_by_exo(point: EntryPoint) -> bool:
    """Whether exo's own discovery leads to this package."""
    discovery = import_module(DISCOVERY)
    module: str = discovery.discover_inference_engines().get(point.name, ("",))[0]
    return module.partition(".")[0] == PACKAGE


def check_models(plugin: Plugin) -> Result:
    """Whether the plugin's models are where exo looks them up."""
    models, by_id = plugin.models.table, plugin.models.by_id
    count = f"{len(models)} of this plugin"
    if not models:
        return Result("none", FAIL, "Name at least one model in models.py.")
    wrong = [m.id for m in models if not (type(m.layers) is int and m.layers > 0 and m.repository)]
    if wrong or len(by_id) < len(models):
        advice = "Each model of MODELS in models.py has an id of its own, a number of layers and a "
        advice += f"repository. Look at: {', '.join(wrong or by_id)}."
        return Result(f"{count}, not all of use to exo", FAIL, advice)
    if _has("exo.worker.runner.bootstrap"):
        return _models_0_3(plugin)
    if check_exo(plugin).state != OK:
        return Result(count)
    cards: dict[str, Any] = import_module("exo.models").model_cards
    repositories = {name: [*card.get("repo", {}).values()] for name, card in cards.items()}
    hidden = [n for n, model in by_id.items() if model.repository not in repositories.get(n, ())]
    if hidden:
        advice = f"exo has no such model for this engine: {', '.join(hidden)}. Use other ids."
        return Result(f"{count}, {len(hidden)} not in exo", FAIL, advice)
    return Result(f"{count}, all known to exo")


def check_tokenizers(plugin: Plugin) -> Result:
    """For which models a tokenizer is on this machine. Downloads nothing."""
    from ..repository.files import tokenizer_here
    from ..text.tokenizer import Tokenizer, TokenizerError

    here, broken = [], []
    for name, model in plugin.models.by_id.items():
        folder = tokenizer_here(model.repository)
        if folder is None:
            continue
        here.append(name)
        try:
            Tokenizer.from_folder(folder)
        except TokenizerError as error:
            broken.append(f"{name}: {sentence(error)}.")
    if broken:
        return Result(f"{len(broken)} broken", FAIL, " ".join(broken))
    if here:
        return Result(f"here for {', '.join(here)}")
    advice = "A model's tokenizer is downloaded at its first use; that needs the network."
    return Result(f"here for none of {len(plugin.models)} models", NOTE, advice)


CHECKS: dict[str, Callable[[Plugin], Result | Awaitable[Result]]] = {
    "device": check_device,
    "backend": check_backend,
    "exo": check_exo,
    "entry points": check_entry_points,
    "models": check_models,
    "tokenizer": check_tokenizers,
}


async def run(plugin: Plugin, _: argparse.Namespace) -> int:
    """Say what is there and what is missing; 0 when exo can answer with this plugin."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table, advice, code = Table("check", "", "result"), [], 0
    for name, check in CHECKS.items():
        try:
            reply = check(plugin)
            result = await reply if isawaitable(reply) else reply
        except Exception as error:  # a doctor never falls over
            result = Result("the check failed", FAIL, sentence(error))
        state = f"[{_COLOURS[result.state]}]{result.state}[/]"
        table.add_row(name, state, escape(printable(result.text)))
        code |= result.state == FAIL
        if result.advice:
            advice.append(printable(f"{name}: {result.advice}"))
    console = Console()
    console.print(table)
    for line in advice:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return code
