"""What a stand-in says of exo, beside what exo has: every name, its kind, its parameters."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

NAMES = Path(__file__).with_name("names.py")
Described = dict[str, Any]


def modules(folder: Path) -> list[str]:
    """The modules of a stand-in's folder."""
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*.py"))
    return [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]


def read(python: str | Path, names: list[str], *folders: Path) -> dict[str, Any]:
    """What is in these modules, on this Python."""
    done = subprocess.run(
        [str(python), str(NAMES), *map(str, folders)],
        input=json.dumps(names),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    members: dict[str, Any] = json.loads(done.stdout)
    return members


def differences(python: str | Path, folders: list[Path], ours: dict[str, str]) -> list[str]:
    """What the stand-in in these folders has otherwise than the exo of that Python.

    ours: modules, names (`Name` or `Name.member`, in whichever module) that are meant to be
    otherwise, and why.
    """
    names = ["exo", *(name for folder in folders for name in modules(folder) if name != "exo")]
    standin, real = read(sys.executable, names, *folders), read(python, names)
    faults = []
    for module, content in standin.items():
        if module in ours:
            continue
        if isinstance(content, str) or isinstance(real[module], str):
            faults.append(f"{module}: {content if isinstance(content, str) else real[module]}")
            continue
        for name, about in content.items():
            where = f"{module}:{name}"
            if name in ours or (name.startswith("_") and name not in real[module]):
                continue
            if name not in real[module]:
                if about["from"] == module:  # else it is imported there for its own use
                    faults.append(f"{where} is not in exo")
                continue
            faults += compared(where, about, real[module][name], ours)
    return faults


def compared(where: str, own: Described, real: Described, ours: dict[str, str]) -> list[str]:
    """What is different of one name."""
    if where.partition(":")[2] in ours:
        return []
    if own["is"] != real["is"]:
        both = {own["is"], real["is"]}
        if both <= {"class", "type", "value"}:  # an alias, or a union
            return []
        return [f"{where} is a {own['is']}, exo's a {real['is']}"]
    if own["is"] == "function":
        return calls(where, own, real)
    if own["is"] != "class":
        return []
    faults = record(where, own.get("fields"), real.get("fields"))
    for name, member in own["members"].items():
        inner = f"{where}.{name}"
        if f"{where.partition(':')[2]}.{name}" in ours or (
            name == "__init__" and own.get("fields") is not None
        ):
            continue
        if name not in real["members"]:
            if name != "__init__" and name not in (real.get("fields") or {}):
                faults.append(f"{inner} is not in exo")
            continue
        faults += compared(inner, member, real["members"][name], ours)
    return faults


def calls(where: str, own: Described, real: Described) -> list[str]:
    """A call of the stand-in's is one of exo's, and one of exo's without options is ours."""
    lines = []
    kinds = {own["gives"], real["gives"]}
    if len(kinds) > 1 and not ("plain" in kinds and kinds & {"generator", "asyncgen"}):
        lines.append(f"{where} gives a {own['gives']}, exo's a {real['gives']}")
    if own["parameters"] is None or real["parameters"] is None:
        return lines
    mine = [p[0] for p in own["parameters"] if "VAR" not in p[1]]
    theirs = {name: optional for name, kind, optional in real["parameters"] if "VAR" not in kind}
    open_ended = any("VAR" in kind for _, kind, _ in real["parameters"])
    if unknown := [name for name in mine if name not in theirs and not open_ended]:
        lines.append(f"{where} takes {', '.join(unknown)}, and exo's {', '.join(theirs) or 'none'}")
    open_ended = any("VAR" in kind for _, kind, _ in own["parameters"])
    lacks = [n for n, optional in theirs.items() if n not in mine and not optional]
    if lacks and not open_ended:
        lines.append(f"{where} lacks {', '.join(lacks)}, which exo's must be given")
    shared = [name for name in mine if name in theirs]
    if shared != [name for name in theirs if name in shared]:
        lines.append(f"{where} has its parameters in another order than exo's")
    optional = {name: default for name, _, default in own["parameters"]}
    for name in shared:
        if optional[name] and not theirs[name]:
            lines.append(f"{where} can be called without {name}, and exo's can't")
    return lines


def record(where: str, own: Described | None, real: Described | None) -> list[str]:
    """The stand-in's fields are exo's, and none that exo's must have is missing."""
    if own is None or real is None:
        return []
    unknown = [name for name in own if name not in real]
    lacks = [name for name, required in real.items() if required and name not in own]
    other = [n for n in own if n in real and own[n] != real[n]]
    sentences = (("has no field", unknown), ("must be given", lacks), ("requires otherwise", other))
    return [f"{where}: exo {what} {', '.join(names)}" for what, names in sentences if names]
