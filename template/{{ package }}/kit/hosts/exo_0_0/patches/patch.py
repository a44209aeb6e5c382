"""How exo's faults are patched for this plugin, without a change to exo.

A patch wraps one function of exo's. It does nothing for other engines, so that two plugins in one
process wrap each other harmlessly. It looks first whether exo still has the fault (looks.py), or
says why that can't be seen. EXO_PLUGIN_HOST_FIXES=0 switches all of them off.
"""

import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .....names import PACKAGE
from .looks import Function, Look

Wrap = Callable[[Function, Any], Function]  # exo's function, and the class of this plugin's engine

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patch:
    """One fault: where it is, and what is put around it.

    look: whether the fault is still there, or why that can't be seen.
    """

    target: str  # "module:function" or "module:Class.method"
    wrap: Wrap
    look: Look | str

    def apply(self, engine_class: Any) -> bool:
        """Wrap exo's function, once, where this process has it and it has the fault."""
        name, _, path = self.target.partition(":")
        module = _module(name)
        holder, _, attribute = path.rpartition(".")
        owner: Any = getattr(module, holder, None) if holder else module
        if owner is None or not hasattr(owner, attribute):
            return False
        original = getattr(owner, attribute)
        patched_by = getattr(original, "patched_by", ())
        if PACKAGE in patched_by or not self._has_fault(original, module):
            return False
        wrapped = functools.wraps(original)(self.wrap(original, engine_class))
        wrapped.__dict__["patched_by"] = (*patched_by, PACKAGE)
        setattr(owner, attribute, wrapped)
        _log.debug("%s: %s", self.wrap.__name__, inspect.getdoc(self.wrap))
        return True

    def _has_fault(self, original: Function, module: Any) -> bool:
        if isinstance(self.look, str):
            return True
        try:
            return self.look(inspect.unwrap(original), module)
        except Exception:
            return True  # it can't be seen


PATCHES: list[Patch] = []


def patches(target: str, look: Look | str) -> Callable[[Wrap], Wrap]:
    """Register a patch; its docstring is one line on the fault."""

    def register(wrap: Wrap) -> Wrap:
        PATCHES.append(Patch(target, wrap, look))
        return wrap

    return register


def apply_patches(engine_class: Any) -> None:
    """Apply every patch to the parts of exo that this process has loaded."""
    if os.environ.get("EXO_PLUGIN_HOST_FIXES") == "0":
        return
    if models := sys.modules.get("exo.models"):
        for model_id, name in engine_class.models.pretty_names.items():
            models.pretty_name.setdefault(model_id, name)  # exo has no entry point for them
    names = [each.wrap.__name__ for each in PATCHES if each.apply(engine_class)]
    if names:
        _log.info("%d faults of exo patched: %s", len(names), ", ".join(names))


def _module(name: str) -> ModuleType | None:
    """A loaded module; exo's main module can be the one that runs."""
    main = sys.modules.get("__main__")
    if main is not None and getattr(getattr(main, "__spec__", None), "name", "") == name:
        return main
    return sys.modules.get(name)
