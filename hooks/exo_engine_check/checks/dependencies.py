"""EX21: what the package imports, against what the distribution declares."""

import functools
import sys
from collections.abc import Iterator, Mapping, Set

from .. import host
from ..files import words
from ..inside.check import Check
from ..plugin import Plugin
from ..report import Fault, Place
from ..source import Import, Module
from .packaging import project_of

# Modules whose distribution has another name.
_CALLED = dict(
    pair.split("=")
    for pair in words(
        """cv2=opencv-python dateutil=python-dateutil google=protobuf grpc=grpcio PIL=pillow
    pynvml=nvidia-ml-py serial=pyserial sklearn=scikit-learn usb=pyusb yaml=pyyaml"""
    )
)
# Frameworks that take seconds to import, or bring up a device.
FRAMEWORKS = words("jax keras mlx mlx_lm tensorflow tinygrad torch transformers triton vllm")


class EX210(Check):
    "What the package imports, it requires"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """A library that happens to be there on the author's machine is missing on the next one:
        the models or the detector are then gone without a word (plugin_discovery.py:117,141), or
        the engine ends exo's start (plugin_discovery.py:184). Add it to `dependencies`; an SDK that
        no index has is imported inside `try` with an `except ImportError` that says where it comes
        from."""
        if plugin.problems or "dependencies" in plugin.metadata.dynamic:
            return
        declared = required(plugin)
        extras = {project_of(t): extra for t, extra in plugin.metadata.requirements if extra}
        seen: set[str] = set()
        for module, each in _foreign(plugin):
            top = each.top
            if top in seen or each.tried or is_of(top, declared | host.PINS.keys()):
                continue
            seen.add(top)
            extra = next((extra for name, extra in extras.items() if is_of(top, {name})), "")
            only = f"only the extra {extra} has it" if extra else "no requirement brings it"
            yield Fault(Place(module.path, each.line), f"{top} is imported here, and {only}")


def _foreign(plugin: Plugin) -> Iterator[tuple[Module, Import]]:
    """Imports of what is neither Python's, nor exo's, nor the plugin's own."""
    own = {name.partition(".")[0] for name in plugin.package.modules}
    known = own | sys.stdlib_module_names | {"exo", ""}
    for module in plugin.package:
        for each in module.imports:
            if each.top not in known:
                yield module, each


def is_of(top: str, projects: Set[str]) -> bool:
    """Whether a module may be of one of these: by custom, or as this Python has it."""
    plain = top.replace("_", "-").lower()
    names = {plain, f"python-{plain}", f"{plain}-python", _CALLED.get(top, plain)}
    # What is installed is read from all records of it, which takes a while.
    return bool(names & projects or set(map(project_of, _installed().get(top, ()))) & projects)


def required(plugin: Plugin) -> set[str]:
    """The projects that an installation without extras brings."""
    return {project_of(t) for t, extra in plugin.metadata.requirements if not extra}


def declared_modules(plugin: Plugin) -> set[str]:
    """The modules that the package imports and its requirements bring."""
    declared = required(plugin)
    return {each.top for _, each in _foreign(plugin) if is_of(each.top, declared)}


@functools.cache
def _installed() -> Mapping[str, list[str]]:
    from importlib.metadata import packages_distributions

    return packages_distributions()


class EX211(Check):
    "No framework is imported before it is needed"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """Every start of exo imports the models and detectors of every installed plugin
        (plugin_discovery.py:109-112,133-136), and the engine before it is chosen for a model. A
        framework takes seconds, and where it is missing the plugin is gone. Import it inside the
        function that needs it."""
        entries = [entry.module for entry in plugin.in_group(*host.GROUPS)]
        for module in plugin.package.loaded_with(entries):
            for each in module.imports:
                if each.runs and each.top in FRAMEWORKS:
                    place = Place(module.path, each.line)
                    yield Fault(place, f"{each.top} is imported when exo starts")
