"""How exo's faults are patched for this plugin, without a change to exo.

A patch wraps one function of exo's. It does nothing for other engines, so that two plugins in one
process wrap each other harmlessly. Where exo can be asked whether it still has the fault, it is:
exo's own, unwrapped function runs on something that looks like a node. Where that can't be seen,
the patch is on. EXO_PLUGIN_HOST_FIXES=0 switches all of them off.
"""

import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .....names import PACKAGE

Function = Callable[..., Any]
Wrap = Callable[[Function, Any], Function]  # exo's function, and the class of this plugin's engine
Look = Callable[[Function, ModuleType], bool]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patch:
    """One fault: where it is, what is put around it, and how to see whether it is still there."""

    target: str  # "module:function" or "module:Class.method"
    wrap: Wrap
    is_faulty: Look | None

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
        if self.is_faulty is None:
            return True
        try:
            return self.is_faulty(inspect.unwrap(original), module)
        except Exception:
            return True  # it can't be seen


PATCHES: list[Patch] = []


def patches(target: str, is_faulty: Look | None = None) -> Callable[[Wrap], Wrap]:
    """Register a patch; its docstring is one line on the fault."""

    def register(wrap: Wrap) -> Wrap:
        PATCHES.append(Patch(target, wrap, is_faulty))
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


def run_now(work: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine gives that waits for nothing, as one on a fake node does."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    work.close()
    raise RuntimeError("it waits for something")
