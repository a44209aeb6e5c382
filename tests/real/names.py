"""What modules of exo have, as JSON: run on a stand-in, and on the exo that it stands for.

python names.py [FOLDER...] < a JSON list of modules. FOLDER comes first on sys.path; more than one
are parts of one package. stdout has {module: {name: description} or the error of its import}.
"""

import contextlib
import dataclasses
import enum
import importlib
import inspect
import io
import json
import sys
import types
import typing


def parameters(function):
    """[name, kind, whether it has a default] of each, or nothing where Python can't tell."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    return [
        [p.name, p.kind.name, p.default is not inspect.Parameter.empty]
        for p in signature.parameters.values()
    ]


def fields(cls):
    """{name: whether it is required} of a record, a pydantic model or a dataclass."""
    known = getattr(cls, "model_fields", None)
    if isinstance(known, dict):
        return {name: bool(field.is_required()) for name, field in known.items()}
    if dataclasses.is_dataclass(cls):
        missing = dataclasses.MISSING
        return {
            f.name: f.default is missing and f.default_factory is missing
            for f in dataclasses.fields(cls)
        }
    return None


def function(value):
    """What a call of it takes, and whether it gives something to await or to iterate."""
    kind = "plain"
    for name in ("iscoroutinefunction", "isasyncgenfunction", "isgeneratorfunction"):
        if getattr(inspect, name)(value):
            kind = name.removeprefix("is").removesuffix("function")
    return {"is": "function", "gives": kind, "parameters": parameters(value)}


def members(cls):
    """A class's own and inherited methods and properties, without Python's and pydantic's."""
    names_read = {}
    for base in reversed(cls.__mro__):
        if base.__module__.partition(".")[0] != "exo":
            continue
        for name, value in vars(base).items():
            if name.startswith("_") and name != "__init__":
                continue
            raw = value.__func__ if isinstance(value, staticmethod | classmethod) else value
            if isinstance(raw, types.FunctionType):
                names_read[name] = function(raw)
            elif isinstance(raw, property):
                names_read[name] = {"is": "property"}
    return names_read


def described(value):
    """One name of a module."""
    origin = typing.get_origin(value)
    if isinstance(value, types.ModuleType):
        return {"is": "module"}
    if isinstance(value, type) and not isinstance(value, types.GenericAlias):
        record = fields(value)
        made = {"is": "class", "fields": record, "members": members(value)}
        if issubclass(value, enum.Enum):
            made["values"] = sorted(value.__members__)
        return made
    if origin is not None or isinstance(value, typing.TypeVar):
        return {"is": "type"}
    if inspect.isroutine(value) or isinstance(value, types.FunctionType):
        return function(value)
    return {"is": "value", "type": type(value).__name__}


def main():
    roots = sys.argv[1:]
    sys.path[:0] = roots
    names_read = {}
    noise = io.StringIO()
    for name in json.load(sys.stdin):
        try:
            with contextlib.redirect_stdout(noise):
                module = importlib.import_module(name)
                for other in roots[1:]:
                    path = f"{other}/exo"
                    if path not in sys.modules["exo"].__path__:
                        sys.modules["exo"].__path__.append(path)
        except Exception as error:
            names_read[name] = f"{type(error).__name__}: {error}"
            continue
        names_read[name] = {
            key: described(value) | {"from": getattr(value, "__module__", None)}
            for key, value in vars(module).items()
            if not key.startswith("__") and not isinstance(value, types.ModuleType)
        }
    json.dump(names_read, sys.stdout)


if __name__ == "__main__":
    main()
