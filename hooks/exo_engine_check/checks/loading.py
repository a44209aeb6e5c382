"""EX7: what happens when exo imports the plugin's modules."""

import ast
from collections.abc import Iterator

from .. import host
from ..files import words
from ..findings import Check, Finding, Place, reports
from ..plugin import Plugin
from ..source import STANDARD_LIBRARY, Import, Module, own_parts, running
from .engine import waits
from .packaging import project_of

# Imports that take longer than a plugin may, or bring up a device.
HEAVY = words(
    """accelerate aiohttp cupy cv2 datasets diffusers google grpc huggingface_hub jax keras mlx
    mlx_lm numba onnx onnxruntime openvino pandas PIL requests rkllm rknn rknnlite safetensors scipy
    sentencepiece sklearn tensorflow tensorrt tinygrad tokenizers torch torchvision transformers
    triton vllm"""
)


class Loading(Check):
    family = "exo-loading"


def _models_modules(plugin: Plugin) -> list[Module]:
    """What is loaded while exo.models is being imported."""
    return plugin.package.loaded_with([e.module for e in plugin.in_group(host.GROUP_MODELS)])


class EX701(Loading):
    "The models and the package itself import nothing of exo"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo loads the models of plugins while `exo.models` is being imported (models.py:165-168):
        an import of exo from there finds a half-made module, fails, and the plugin's models are
        gone without a word (plugin_discovery.py:117). Import exo in engine.py alone, or inside a
        function.
        """
        for module in _models_modules(exo_plugin):
            for found in module.imports:
                if found.top == "exo":
                    place = Place(module.path, found.line)
                    yield Finding(place, f"{found.module} is imported while exo imports its models")


class EX702(Loading):
    "Nothing heavy is imported where exo only looks"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        Every start of exo imports the models and detectors of every installed plugin, whichever
        engine is used (plugin_discovery.py:109-112,133-136). A library that takes seconds, or that
        a machine without the device lacks, holds all of them up or loses the plugin. Import it
        inside the function that needs it.
        """
        for module in exo_plugin.discovered:
            for found in module.imports:
                if found.top in HEAVY:
                    place = Place(module.path, found.line)
                    yield Finding(place, f"{found.top} is imported by exo's discovery")


class EX703(Loading):
    "An import does no work"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo imports the modules at its start (plugin_discovery.py:112,136,184), in every process:
        one that prints, asks, sleeps, starts something or ends the process does it there. Move the
        call into a function.
        """
        for module in _loaded(exo_plugin):
            for statement in module.runs:
                for node in _at_import(statement):
                    name = exo_plugin.package.dotted(module, node.func)
                    if _is_work(name):
                        yield Finding(module.place(node), f"{name}() runs when this is imported")
                if isinstance(statement, ast.Raise) and statement in module.tree.body:
                    yield Finding(module.place(statement), "the import always raises")


def _loaded(plugin: Plugin) -> list[Module]:
    entries = [entry for group in host.GROUPS for entry in plugin.in_group(group)]
    return plugin.package.loaded_with([entry.module for entry in entries])


_WORK = words(
    """breakpoint exit input print quit asyncio.run logging.basicConfig multiprocessing.Process
    os._exit os.abort os.fork socket.socket subprocess.Popen sys.exit sys.stdout.write
    threading.Thread"""
)


def _is_work(name: str) -> bool:
    return name in _WORK or waits(name)


def _at_import(statement: ast.stmt) -> Iterator[ast.Call]:
    """Calls that run when the statement does, without those inside functions."""
    yield from (node for node in own_parts(statement) if isinstance(node, ast.Call))
    for inner in running(statement.body) if isinstance(statement, ast.ClassDef) else ():
        yield from _at_import(inner)


class EX704(Loading):
    "The package's own imports exist"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        An import of a module or name that the package does not have is an ImportError: for models
        and detectors exo drops it without a word (plugin_discovery.py:117,141), for the engine it
        ends the start (plugin_discovery.py:184). Mend the name, or take the import out.
        """
        package = exo_plugin.package
        for module in package:
            for found in module.all_imports:
                if not package.owns(found.module) or _inside_try(module, found):
                    continue
                source = package.modules.get(found.module)
                whole = f"{found.module}.{found.name}" if found.name else found.module
                absent = whole if source else found.module
                if absent not in package.modules and exo_plugin.may_be_built(absent):
                    continue
                place = Place(module.path, found.line)
                if source is None:
                    if not _is_namespace(exo_plugin, found.module):
                        yield Finding(place, f"there is no module {found.module}")
                    elif found.name and whole not in package.modules:
                        yield Finding(place, f"there is no module {whole}")
                elif found.name and found.name != "*" and package.lacks(source, found.name):
                    yield Finding(place, f"{found.module} does not define {found.name}")


def _is_namespace(plugin: Plugin, name: str) -> bool:
    return any(known.startswith(f"{name}.") for known in plugin.package.modules)


def _inside_try(module: Module, found: Import) -> bool:
    """Whether a try statement is around an import: its failure is expected."""
    return any(first <= found.line <= last for first, last in module.tried)


class EX705(Loading):
    "What discovery imports is required by the plugin"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        The models and detectors are imported on every machine that has the plugin
        (plugin_discovery.py:112,136). A library that the plugin does not require may be missing
        there, and then they are gone without a word. Require it, or import it inside a function
        that catches the ImportError.
        """
        required = {
            project_of(text) for text, extra, _ in exo_plugin.metadata.requirements if not extra
        }
        known = required | host.PINS.keys()
        imported = {found.top for module in exo_plugin.package for found in module.all_imports}
        if any(not _brings(project, imported) for project in required - host.PINS.keys()):
            return  # it has a module of another name, which may be any of them
        for module in exo_plugin.discovered:
            for found in module.imports:
                name = found.top
                if not name or name in STANDARD_LIBRARY | HEAVY | {"exo", *_PINNED}:
                    continue
                if any(_brings(project, {name}) for project in known):
                    continue
                if exo_plugin.package.owns(name) or _inside_try(module, found):
                    continue
                place = Place(module.path, found.line)
                yield Finding(place, f"{name} is imported here and not among the dependencies")


_PINNED = ("pynvml",)  # a module of exo's pins whose name is not like its distribution's


def _brings(project: str, modules: set[str]) -> bool:
    """Whether a project has a name like that of one of these modules."""
    spelt = [module.replace("_", "-").lower() for module in modules if module]
    return any(module in project or project in module for module in spelt)
