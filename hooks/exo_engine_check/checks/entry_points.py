"""EX1: the entry points, through which exo finds everything."""

import ast
import difflib
from collections.abc import Iterator

from .. import host
from ..evaluate import UnknownError, value_of
from ..findings import Check, Finding, reports
from ..plugin import EntryPoint, Plugin, Target


class EntryPoints(Check):
    family = "exo-entry-points"


def misspelt(group: str) -> str | None:
    """The group of exo that another name was meant for."""
    plain = group.lower().replace("-", "_").replace(" ", "")
    if group in host.GROUPS:
        return None
    near = difflib.get_close_matches(plain, host.GROUPS, 1, 0.8)
    if near:
        return near[0]
    ours = plain.startswith(("exo.", "exo_"))
    return next((g for g in host.GROUPS if ours and g[4:8] in plain[4:]), None)


def _present(plugin: Plugin, group: str) -> bool:
    """Whether a group is there, under its own or a misspelt name."""
    return bool(plugin.in_group(group)) or any(misspelt(name) == group for name in plugin.groups)


def _missing(plugin: Plugin, group: str) -> Iterator[Finding]:
    if plugin.problems or _present(plugin, group) or "entry-points" in plugin.metadata.dynamic:
        return
    place = plugin.groups.get(group) or plugin.line("project", "entry-points")
    yield Finding(place, f"there is no entry point of the group {group}")


def _targets(plugin: Plugin, *groups: str) -> Iterator[tuple[EntryPoint, Target]]:
    for group in groups or host.GROUPS:
        for entry in plugin.in_group(group):
            yield entry, plugin.target(entry)


class EX101(EntryPoints):
    "The plugin registers an engine"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo finds engines through the group `exo.inference_engines` alone (plugin_discovery.py:88).
        Add `[project.entry-points."exo.inference_engines"]` with
        `myengine = "exo_myengine.engine:MyInferenceEngine"`.
        """
        yield from _missing(exo_plugin, host.GROUP_ENGINES)


class EX102(EntryPoints):
    "The plugin registers its models"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo offers a model to an engine only where a card names the engine's class (models.py:258),
        and plugins add cards through the group `exo.models` (plugin_discovery.py:109). Add
        `[project.entry-points."exo.models"]` with `myengine = "exo_myengine.models:MODELS"`.
        """
        yield from _missing(exo_plugin, host.GROUP_MODELS)


class EX103(EntryPoints):
    "The plugin registers a device detector"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        The group `exo.device_detectors` tells which machines the engine is for
        (plugin_discovery.py:133). Add `[project.entry-points."exo.device_detectors"]` with
        `myengine = "exo_myengine.detection:detect_device"`.
        """
        yield from _missing(exo_plugin, host.GROUP_DETECTORS)


class EX104(EntryPoints):
    "The names of exo's groups are spelt as exo spells them"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        A group of another name is valid metadata that nobody reads: the plugin is not there, and
        no message says so (plugin_discovery.py:60). Use `exo.inference_engines`, `exo.models` and
        `exo.device_detectors`. `exo-engine check --fix` renames the group.
        """
        for group, place in exo_plugin.groups.items():
            meant = misspelt(group)
            if meant is not None:
                yield Finding(place, f"exo reads no group {group}; this should be {meant}")


class EX105(EntryPoints):
    "An entry point is a module and one name: module.path:Name"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo cuts the value at its last colon and takes the rest as a module and one attribute
        (plugin_discovery.py:92,184-185). A value without a colon ends the discovery of all engines
        with a ValueError; extras, hyphens and nested attributes fail when the engine is loaded.
        """
        for entry in exo_plugin.entry_points:
            if entry.group in host.GROUPS and not entry.is_well_formed:
                yield Finding(
                    entry.place, f'{entry} is "{entry.value}", not module.path:Name in identifiers'
                )


class EX106(EntryPoints):
    "The modules of the entry points exist"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo imports the module by this name (plugin_discovery.py:112,136,184): a stale or misspelt
        one is an ImportError, without a word for models and detectors. Name the module as the
        package has it, and build the wheel with it.
        """
        for entry, target in _targets(exo_plugin):
            missing = entry.is_well_formed and target.module is None
            if missing and not exo_plugin.may_be_built(entry.module):
                top = entry.module.partition(".")[0]
                kind = "package" if top not in exo_plugin.bases else "module"
                name = top if kind == "package" else entry.module
                yield Finding(entry.place, f"{entry} names a {kind} that is not here: {name}")


class EX107(EntryPoints):
    "The names of the entry points exist in their modules"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo takes the attribute from the imported module (plugin_discovery.py:112,136,185); one that
        was renamed is an AttributeError, without a word for models and detectors. Give the class,
        dict or function its new name in pyproject.toml too.
        """
        for entry, target in _targets(exo_plugin):
            module = target.module
            if module is None or not exo_plugin.package.lacks(module, entry.attribute):
                continue
            near = difflib.get_close_matches(entry.attribute, module.names, 1, 0.5)
            hint = f"; is {near[0]} meant?" if near else ""
            message = f"{entry} names {entry.attribute}, which {module.name} does not define{hint}"
            yield Finding(entry.place, message)


class EX108(EntryPoints):
    "The entry points lead to a class, a dict and a function"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo calls the engine's value as a class (plugin_discovery.py:189), takes models only when
        they are a dict (plugin_discovery.py:113) and detectors only when they can be called
        (plugin_discovery.py:137). Let the entry point name the thing itself, not one beside it.
        """
        for entry, target in _targets(exo_plugin):
            definition = target.definition
            if definition is None or definition.imported is not None:
                continue
            node = definition.node
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if entry.group == host.GROUP_ENGINES and function:
                yield Finding(definition.place, f"{entry} is a function, not a class")
            elif entry.group == host.GROUP_MODELS:
                yield from _not_a_dict(exo_plugin, entry, target)
            elif entry.group == host.GROUP_DETECTORS and _constant(exo_plugin, entry, target):
                yield Finding(definition.place, f"{entry} is a value, not a function")
            elif entry.group == host.GROUP_ENGINES and _constant(exo_plugin, entry, target):
                yield Finding(definition.place, f"{entry} is a value, not a class")


def _constant(plugin: Plugin, entry: EntryPoint, target: Target) -> bool:
    """Whether the name stands for a value that is no class and no function."""
    if target.module is None:
        return False
    try:
        value_of(plugin.package, target.module, entry.attribute)
    except UnknownError:
        return False
    return True


def _not_a_dict(plugin: Plugin, entry: EntryPoint, target: Target) -> Iterator[Finding]:
    assert target.definition is not None
    assert target.module is not None
    if isinstance(target.definition.node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield Finding(target.definition.place, f"{entry} is a definition, not a dict")
        return
    try:
        value = value_of(plugin.package, target.module, entry.attribute)
    except UnknownError:
        return
    if not isinstance(value, dict):
        message = f"{entry} is a {type(value).__name__}, not a dict"
        yield Finding(target.definition.place, message)


class EX109(EntryPoints):
    "The engine's name is not one of exo's own"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        A plugin with the name of a built-in engine is passed over without a word
        (plugin_discovery.py:90): `exo --inference-engine rkllm` loads exo's own. Choose another
        name for the entry point.
        """
        for entry in exo_plugin.in_group(host.GROUP_ENGINES):
            if entry.name in host.BUILT_IN_ENGINES:
                yield Finding(entry.place, f"exo has an engine of its own called {entry.name}")
