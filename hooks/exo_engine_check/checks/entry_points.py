"""EX1: the entry points, through which exo finds everything."""

import ast
import difflib
from collections.abc import Iterator

from .. import host
from ..findings import Check, Finding, reports
from ..plugin import EntryPoint, Plugin

_IMPORTS = (ast.Import, ast.ImportFrom)


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
    if plugin.problems or _present(plugin, group):
        return
    place = plugin.groups.get(group) or plugin.line("project", "entry-points")
    yield Finding(place, f"there is no entry point of the group {group}")


class EX101(EntryPoints):
    "The plugin registers an engine"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """exo finds engines through the group `exo.inference_engines` alone
        (plugin_discovery.py:88). Add `[project.entry-points."exo.inference_engines"]` with
        `myengine = "exo_myengine.engine:MyInferenceEngine"`."""
        yield from _missing(exo_plugin, host.GROUP_ENGINES)


class EX102(EntryPoints):
    "The plugin registers its models"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """exo offers a model to an engine only where a card names the engine's class
        (models.py:258), and plugins add cards through the group `exo.models`
        (plugin_discovery.py:109). Add `[project.entry-points."exo.models"]` with `myengine =
        "exo_myengine.models:MODELS"`."""
        yield from _missing(exo_plugin, host.GROUP_MODELS)


class EX103(EntryPoints):
    "The plugin registers a device detector"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """The group `exo.device_detectors` tells which machines the engine is for
        (plugin_discovery.py:133). Add `[project.entry-points."exo.device_detectors"]` with
        `myengine = "exo_myengine.detection:detect_device"`."""
        yield from _missing(exo_plugin, host.GROUP_DETECTORS)


class EX104(EntryPoints):
    "The names of exo's groups are spelt as exo spells them"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """A group of another name is valid metadata that nobody reads: the plugin is not there, and
        no message says so (plugin_discovery.py:60). Use `exo.inference_engines`, `exo.models` and
        `exo.device_detectors`. `exo-engine check --fix` renames the group."""
        for group, place in exo_plugin.groups.items():
            meant = misspelt(group)
            if meant is not None:
                yield Finding(place, f"exo reads no group {group}; this should be {meant}")


class EX105(EntryPoints):
    "An entry point is a module and one name: module.path:Name"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """exo cuts the value at its last colon and takes the rest as a module and one attribute
        (plugin_discovery.py:92,184-185). A value without a colon ends the discovery of all engines
        with a ValueError; extras, hyphens and nested attributes fail when the engine is loaded."""
        for entry in exo_plugin.entry_points:
            if entry.group in host.GROUPS and not entry.is_well_formed:
                yield Finding(
                    entry.place, f'{entry} is "{entry.value}", not module.path:Name in identifiers'
                )


class EX106(EntryPoints):
    "The modules of the entry points exist"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """exo imports the module by this name (plugin_discovery.py:112,136,184): a stale or
        misspelt one is an ImportError, without a word for models and detectors. Name the module as
        the package has it, and build the wheel with it."""
        for entry in _followed(exo_plugin):
            here = entry.module in exo_plugin.package.modules
            if not here and not exo_plugin.may_be_built(entry.module):
                top = entry.module.partition(".")[0]
                kind = "package" if top not in exo_plugin.bases else "module"
                name = top if kind == "package" else entry.module
                yield Finding(entry.place, f"{entry} names a {kind} that is not here: {name}")


def _followed(plugin: Plugin) -> Iterator[EntryPoint]:
    """The entry points of exo's groups that lead to a name."""
    return (e for g in host.GROUPS for e in plugin.in_group(g) if e.is_well_formed)


class EX107(EntryPoints):
    "The names of the entry points exist in their modules"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """exo takes the attribute from the imported module (plugin_discovery.py:112,136,185); one
        that was renamed is an AttributeError, without a word for models and detectors. Give the
        class, dict or function its new name in pyproject.toml too."""
        for entry in _followed(exo_plugin):
            module = exo_plugin.package.modules.get(entry.module)
            if module is not None and exo_plugin.target(entry) is None:
                own = [n for n, node in module.names.items() if not isinstance(node, _IMPORTS)]
                near = difflib.get_close_matches(entry.attribute, own, 1, 0.5)
                hint = f"; is {near[0]} meant?" if near else ""
                message = f"{entry} names {entry.attribute}, which {module.name} does not define"
                yield Finding(entry.place, message + hint)


class EX108(EntryPoints):
    "The entry points lead to a class, a dict and a function"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """exo calls the engine's value as a class (plugin_discovery.py:189), takes models only when
        they are a dict (plugin_discovery.py:113) and detectors only when they can be called
        (plugin_discovery.py:137). Let the entry point name the thing itself, not one beside it."""
        wanted = dict(zip(host.GROUPS, ("class", "dict", "function"), strict=True))
        for entry in _followed(exo_plugin):
            if isinstance(found := exo_plugin.target(entry), tuple):
                kind, want = _kind(found[1]), wanted[entry.group]
                if kind and kind != want and (kind, want) != ("class", "function"):
                    place = found[0].place(found[1])
                    yield Finding(place, f"{entry} is a {kind}, not a {want}")


def _kind(node: ast.stmt) -> str:
    """What a definition makes, where its own words tell."""
    if isinstance(node, ast.ClassDef):
        return "class"
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return "" if node.decorator_list else "function"
    value = getattr(node, "value", None)
    if isinstance(value, ast.Constant | ast.JoinedStr):
        return "value"
    kinds = {ast.List: "list", ast.Tuple: "tuple", ast.Set: "set", ast.Dict: "dict"}
    kinds |= {ast.ListComp: "list", ast.DictComp: "dict", ast.SetComp: "set"}
    return kinds.get(type(value), "")


class EX109(EntryPoints):
    "The engine's name is not one of exo's own"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """A plugin with the name of a built-in engine is passed over without a word
        (plugin_discovery.py:90): `exo --inference-engine rkllm` loads exo's own. Choose another
        name for the entry point."""
        for entry in exo_plugin.in_group(host.GROUP_ENGINES):
            if entry.name in host.BUILT_IN_ENGINES:
                yield Finding(entry.place, f"exo has an engine of its own called {entry.name}")
