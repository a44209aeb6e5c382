"""EX1: the entry points, through which exo finds everything."""

import ast
import difflib
from collections.abc import Iterator

from .. import host
from ..inside.check import Check
from ..plugin import Plugin
from ..report import Fault


def meant_by(group: str) -> str | None:
    """The group of exo that another name was meant for."""
    plain = group.lower().replace("-", "_").replace(" ", "")
    if group in host.GROUPS:
        return None
    near = difflib.get_close_matches(plain, host.GROUPS, 1, 0.8)
    if near:
        return near[0]
    ours = plain.startswith(("exo.", "exo_"))
    return next((g for g in host.GROUPS if ours and g[4:8] in plain[4:]), None)


class EX101(Check):
    "The plugin registers an engine, its models and a detector"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """exo finds engines through the group `exo.inference_engines` alone
        (plugin_discovery.py:88), models for them through `exo.models` (109), and which machines
        they are for through `exo.device_detectors` (133). Add
        `[project.entry-points."exo.inference_engines"]` with
        `myengine = "exo_myengine.engine:MyInferenceEngine"`, and the others likewise."""
        meant = {meant_by(name) for name in plugin.groups}
        for group in host.GROUPS if not plugin.problems else ():
            if not plugin.in_group(group) and group not in meant:
                place = plugin.groups.get(group) or plugin.line("[project.entry-points")
                yield Fault(place, f"there is no entry point of the group {group}")


class EX104(Check):
    "The names of exo's groups are written as exo has them"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """A group of another name is valid metadata that nobody reads: the plugin is not there, and
        no message says so (plugin_discovery.py:60). Use `exo.inference_engines`, `exo.models` and
        `exo.device_detectors`."""
        for group, place in plugin.groups.items():
            meant = meant_by(group)
            if meant is not None:
                yield Fault(place, f"exo reads no group {group}; this should be {meant}")


class EX105(Check):
    "An entry point is a module and one name: module.path:Name"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """exo cuts the value at its last colon and takes the rest as a module and one attribute
        (plugin_discovery.py:92,184-185). A value without a colon ends the discovery of all engines
        with a ValueError; extras, hyphens and nested attributes fail when the engine is loaded."""
        for entry in plugin.entry_points:
            if entry.group in host.GROUPS and not entry.is_well_formed:
                yield Fault(
                    entry.place, f'{entry} is "{entry.value}", not module.path:Name in identifiers'
                )


class EX106(Check):
    "The modules of the entry points exist"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """exo imports the module by this name (plugin_discovery.py:112,136,184): a stale or
        mistyped one is an ImportError, without a word for models and detectors. Name the module as
        the package has it, and build the wheel with it."""
        for entry in plugin.followed():
            if not plugin.is_here(entry.module) and not plugin.may_be_built():
                top = entry.module.partition(".")[0]
                kind, name = ("module", entry.module) if top in plugin.bases else ("package", top)
                yield Fault(entry.place, f"{entry} names a {kind} that is not here: {name}")


class EX107(Check):
    "The names of the entry points exist in their modules"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """exo takes the attribute from the imported module (plugin_discovery.py:112,136,185); one
        that was renamed is an AttributeError, without a word for models and detectors. Give the
        class, dict or function its new name in pyproject.toml too."""
        for entry in plugin.followed():
            if plugin.lacks(entry):
                module = plugin.package.modules[entry.module]
                imports = (ast.Import, ast.ImportFrom)
                own = [n for n, node in module.names.items() if not isinstance(node, imports)]
                near = difflib.get_close_matches(entry.attribute, own, 1, 0.5)
                hint = f"; is {near[0]} meant?" if near else ""
                message = f"{entry} names {entry.attribute}, which {module.name} does not define"
                yield Fault(entry.place, message + hint)


class EX109(Check):
    "The names are not exo's own"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """exo passes over an engine with the name of a built-in one (plugin_discovery.py:90), and
        tells engines apart by the name of their class: model cards are keyed by it
        (models.py:258), and `DummyInferenceEngine` has a meaning of its own (node.py:522). A
        distribution or package `exo` replaces the host (setup.py:81 of exo). Choose other names:
        `exo-myengine`, with the package `exo_myengine`."""
        for entry in plugin.in_group(host.GROUP_ENGINES):
            if entry.name in host.BUILT_IN_ENGINES:
                yield Fault(entry.place, f"exo has an engine of its own called {entry.name}")
        for engine in plugin.engines:
            if engine.name in host.BUILT_IN_ENGINES.values():
                yield Fault(engine.place, f"exo has an engine of its own called {engine.name}")
        if (plugin.metadata.name or "").lower() == "exo":
            yield Fault(plugin.line("[project]", "name"), "the project is called exo")
        for entry in plugin.in_group(*host.GROUPS):
            if entry.module.partition(".")[0] == "exo":
                yield Fault(entry.place, f"{entry} leads into exo's own package: {entry.module}")
