"""What checks get by parameter name; each is made once, from others by their names."""

import functools
import sys
from collections.abc import Callable
from typing import Any

from . import host, imports
from .core import BrokenError, NotRunError, Report
from .device import Devices
from .drive import Driver

ENGINES, MODELS, DETECTORS = "exo.inference_engines", "exo.models", "exo.device_detectors"
Entry = dict[str, str]


def imported(report: Report) -> imports.Imported:
    """The plugin's modules, imported in exo's order, and what that brought."""
    host.put_on_path(report)
    host.only_this_plugin(report.request)
    seen = imports.Imported()
    imports.discovery(report, seen, _modules(report, MODELS, DETECTORS))
    with report.step("importing exo with the plugin's models"):
        seen.exo = host.Exo()
    if report.request["faultless"] and seen.exo.node is not None:
        host.mend_faults(seen.exo.node)
    before = imports.collectors()
    for module in _modules(report, ENGINES):
        imports.observe(report, seen, module)
    seen.collectors = before
    return seen


def _modules(report: Report, *groups: str) -> list[str]:
    entries = report.request["entry_points"]
    named = [e["value"].rpartition(":")[0] for g in groups for e in entries if e["group"] == g]
    return list(dict.fromkeys(named))


def exo(imported: imports.Imported) -> host.Exo:
    found: host.Exo = imported.exo
    return found


def _values(request: dict[str, Any], imported: imports.Imported, group: str) -> dict[str, Any]:
    """What each entry point of a group names."""
    found: dict[str, Any] = {}
    for entry in request["entry_points"]:
        if entry["group"] == group:
            module, _, name = entry["value"].rpartition(":")
            if module in imported.errors:
                raise imported.errors[module]
            if not hasattr(sys.modules[module], name):
                raise BrokenError(f"{module} has no {name}, which an entry point names")
            found[entry["name"]] = getattr(sys.modules[module], name)
    if not found:
        raise NotRunError(f"the plugin has no entry point of {group}")
    return found


def models(request: dict[str, Any], imported: imports.Imported) -> dict[str, Any]:
    """What the entry points of `exo.models` name."""
    return _values(request, imported, MODELS)


def cards(models: dict[str, Any]) -> dict[str, Any]:
    """The plugin's model cards."""
    found: dict[str, Any] = {}
    for value in models.values():
        if isinstance(value, dict):
            found |= value
    if not found:
        raise NotRunError("the plugin has no model cards")
    return found


def detectors(request: dict[str, Any], imported: imports.Imported) -> dict[str, Any]:
    return _values(request, imported, DETECTORS)


def engines(request: dict[str, Any], imported: imports.Imported) -> dict[str, Any]:
    """What the entry points of `exo.inference_engines` name: classes."""
    return _values(request, imported, ENGINES)


def make_engine(
    report: Report, exo: host.Exo, engines: dict[str, Any], devices: Devices
) -> Callable[[], Any]:
    """Make the first engine as exo does."""
    name = next(iter(engines))
    downloader = devices.downloader(exo)
    load = functools.partial(exo.discovery.load_inference_engine, name, downloader)

    def make() -> Any:
        with report.step(f"loading the engine {name}"):
            return load()

    return make


def collectors(imported: imports.Imported, engine: Any) -> list[Any]:
    """The metrics that the plugin has registered so far."""
    return list(imports.collectors() - imported.collectors)


def engine(make_engine: Callable[[], Any]) -> Any:
    """An engine that has just been made."""
    return make_engine()


def devices(report: Report) -> Devices:
    return Devices(report)


def driver(
    report: Report,
    exo: host.Exo,
    devices: Devices,
    engines: dict[str, Any],
    make_engine: Callable[[], Any],
    engine: Any,
    request: dict[str, Any],
) -> Driver:
    """Drives engines on the plugin's device as nodes of exo do."""
    if not devices.named:
        raise NotRunError(
            "[tool.exo-engine] names no device and no tiny-model to answer with (README)"
        )
    cards = _cards_of(request)
    device = devices.enter(exo, type(engine).__name__, cards)
    return Driver(report, exo, devices, device, make_engine, type(engine).__name__, cards)


def _cards_of(request: dict[str, Any]) -> dict[str, Any]:
    """The plugin's cards, where they can be had: a device may need none."""
    found: dict[str, Any] = {}
    for entry in request["entry_points"]:
        module, _, name = entry["value"].rpartition(":")
        value = getattr(sys.modules.get(module), name, None)
        if entry["group"] == MODELS and isinstance(value, dict):
            found |= value
    return found
