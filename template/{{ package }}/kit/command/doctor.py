"""`doctor`: what an installed plugin has around it, and what is missing. Needs no exo."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from ..names import PACKAGE
from .telling import CommandError, printable, sentence

GROUPS = ("exo.inference_engines", "exo.models", "exo.device_detectors")
GET_EXO = 'pip install "exo @ git+https://github.com/jfreed-dev/exo-rkllama"'
OK, NOTE, FAIL = "ok", "note", "fail"


@dataclass(frozen=True)
class Finding:
    """One row of `doctor`. `advice` says what to do about a row that is not ok."""

    check: str
    state: str
    text: str
    advice: str = ""


def check_device() -> Finding:
    """What this machine's hardware is, as far as the plugin can see."""
    from ...detection import detect_device

    device: Any = detect_device()
    if device is not None and not isinstance(device, str):
        raise CommandError(f"detect_device() gives {device!r}; it gives a name or None")
    if device:
        return Finding("device", OK, device)
    return Finding(
        "device", NOTE, "none found here", "This is fine where the device is on another machine."
    )


async def check_backend() -> Finding:
    """What the backend says of its device or server. Loads no model."""
    try:
        from ..core.device import Device
        from .session import own_backend

        device = Device(own_backend())
        try:
            return Finding("backend", OK, await device.check())
        finally:
            device.stop()
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
        for point in ours[GROUPS[0]]:
            point.load()
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
    from ...models import TABLE
    from ..hosts.cards import BY_ID

    count = f"{len(TABLE)} of this plugin"
    if not TABLE:
        return Finding("models", FAIL, "none", "Name at least one model in models.py.")
    wrong = [model.id for model in TABLE if not can_be_offered(model)]
    if wrong or len(BY_ID) < len(TABLE):
        advice = "Each line of TABLE in models.py has an id of its own, a number of layers and a "
        advice += f"repository, owner/name. Look at: {', '.join(wrong or BY_ID)}."
        return Finding("models", FAIL, f"{count}, {len(wrong)} that exo can't offer", advice)
    if not exo:
        return Finding("models", OK, count)
    try:
        from exo.models import model_cards
    except Exception as error:
        return Finding("models", FAIL, "exo's list does not import", sentence(error))
    cards: dict[str, Any] = model_cards
    hidden = [name for name, model in BY_ID.items() if model.repository not in repos(cards, name)]
    if hidden:
        advice = f"exo has no such model for this engine: {', '.join(hidden)}. Use other ids."
        return Finding("models", FAIL, f"{count}, {len(hidden)} not in exo", advice)
    return Finding("models", OK, f"{count}, all known to exo")


def can_be_offered(model: Any) -> bool:
    """Whether exo would offer a model (models.py:257-273 of exo)."""
    layers = type(model.layers) is int and model.layers > 0
    return layers and isinstance(model.repository, str) and model.repository.count("/") == 1


def repos(cards: dict[str, Any], name: str) -> list[str]:
    """The repositories of one of exo's model cards."""
    return list(cards[name]["repo"].values()) if name in cards else []


def check_tokenizers() -> Finding:
    """For which models a tokenizer is on this machine. Downloads nothing."""
    from ..hosts.cards import BY_ID

    with offline():
        from ..core.tokenizer import Tokenizer, TokenizerError, find_tokenizer

        found, broken = [], []
        for name, model in BY_ID.items():
            try:
                folder = find_tokenizer(model.repository)
            except (TokenizerError, OSError):
                continue
            try:
                Tokenizer.from_folder(folder)
            except TokenizerError as error:
                broken.append(f"{name}: {sentence(error)}.")
            found.append(name)
    if broken:
        return Finding("tokenizer", FAIL, f"{len(broken)} broken", " ".join(broken))
    if found:
        return Finding("tokenizer", OK, f"here for {', '.join(found)}")
    advice = "A model's tokenizer is downloaded at its first use; that needs the network."
    return Finding("tokenizer", NOTE, f"here for none of {len(BY_ID)} models", advice)


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


async def run(_: argparse.Namespace) -> int:
    """Say what is there and what is missing; 0 when exo can answer with this plugin."""
    from rich.console import Console
    from rich.markup import escape
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
        text = escape(printable(row.text))
        table.add_row(row.check, f"[{colours[row.state]}]{row.state}[/]", text)
    console = Console()
    console.print(table)
    for row in findings:
        if row.advice:
            line = printable(f"{row.check}: {row.advice}")
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    return int(any(row.state == FAIL for row in findings))


def guarded(check: str, find: Callable[[], Finding]) -> Finding:
    """The finding, or the error that kept us from it: a doctor never falls over."""
    try:
        return find()
    except Exception as error:
        return Finding(check, FAIL, "the check failed", sentence(error))
