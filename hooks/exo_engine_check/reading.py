"""Reading a plugin from a project's folder or an unpacked wheel.

Only what stands in `[project]` or in a wheel is read: what Poetry's own tables, a setup.cfg or a
setup.py make of it, the wheel that they build says.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

from . import files
from .files import CannotRunError, UnreadableError, is_file, words
from .plugin import EntryPoint, Metadata, Plugin, table_of
from .report import Fault, Place
from .source import Module

_BUILD = "build the wheel and check it: exo-engine check dist/*.whl"
_NO_PACKAGES = words("build dist doc docs env example examples exo node_modules test tests venv")


def read_plugin(root: Path) -> Plugin:
    """Read a project's folder or an opened wheel. Raises CannotRunError."""
    info, plugin = next(root.glob("*.dist-info"), None), Plugin(root)
    if is_file(root / "pyproject.toml"):
        project = _project_of_tree(plugin)
    elif info is not None:
        plugin.is_wheel, plugin.config = True, f"{info.name}/METADATA"
        project = _project_of_wheel(plugin, info)
    elif any(is_file(root / name) for name in ("setup.py", "setup.cfg")):
        raise CannotRunError(f"there is no pyproject.toml; {_BUILD}")
    else:
        raise CannotRunError("there is neither a pyproject.toml nor a wheel's .dist-info here")
    plugin.metadata = _metadata_of(plugin, project)
    _add_entry_points(plugin, project)
    _read_package(plugin)
    return plugin


def _project_of_tree(plugin: Plugin) -> dict[str, Any]:
    try:
        plugin.text = files.read_text(plugin.root / plugin.config)
        plugin.pyproject = tomllib.loads(plugin.text)
    except UnreadableError as error:
        plugin.problems.append(Fault(Place(plugin.config), f"the file {error}"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        number = re.search(r"line (\d+)", str(error))
        place = Place(plugin.config, int(number[1]) if number else 0)
        plugin.problems.append(Fault(place, f"this is no TOML: {error}"))
    project = table_of(plugin.pyproject, "project")
    if not plugin.problems and not project:
        raise CannotRunError(f"pyproject.toml has no [project]; {_BUILD}")
    return project


def _project_of_wheel(plugin: Plugin, info: Path) -> dict[str, Any]:
    """What its metadata says, in the form of `[project]`."""
    from importlib.metadata import Distribution

    distribution = Distribution.at(info)
    try:
        plugin.text = files.read_text(info / "METADATA")
        entries = list(distribution.entry_points)
    except (UnreadableError, ValueError) as error:
        plugin.problems.append(Fault(Place(plugin.config), f"the file {error}"))
        return {}
    message: Any = distribution.metadata
    project: dict[str, Any] = {
        "name": message["Name"],
        "requires-python": message["Requires-Python"],
        "readme": str(message.get_payload()).strip() or message["Description"],
        "license": message["License-Expression"] or message["License"],
        "classifiers": message.get_all("Classifier"),
        "dependencies": [],
        "optional-dependencies": {},
        "entry-points": {},
    }
    for text in distribution.requires or []:
        extra = re.search(r"""extra\s*==\s*["']([^"']+)["']""", text)
        of_extra = project["optional-dependencies"].setdefault(extra[1] if extra else "", [])
        (of_extra if extra else project["dependencies"]).append(text)
    for entry in entries:
        project["entry-points"].setdefault(entry.group, {})[entry.name] = entry.value
    return project


def _metadata_of(plugin: Plugin, project: dict[str, Any]) -> Metadata:
    metadata = Metadata(plugin.line("[project]"), _text(project.get("name")))
    metadata.dynamic = frozenset(_texts(project.get("dynamic")))
    metadata.requires_python = _text(project.get("requires-python"))
    for text in _texts(project.get("dependencies")):
        metadata.requirements.append((text, ""))
    for extra, needs in table_of(project, "optional-dependencies").items():
        metadata.requirements += [(text, extra) for text in _texts(needs)]
    readme, licence = project.get("readme"), project.get("license")
    classified = any(t.startswith("License ::") for t in _texts(project.get("classifiers")))
    metadata.has["README"] = bool(readme) or "readme" in metadata.dynamic
    metadata.has["licence"] = bool(licence) or "license" in metadata.dynamic or classified
    named = [readme, table_of(readme).get("file"), table_of(licence).get("file")]
    for name in _texts(named) + _texts(project.get("license-files")) if not plugin.is_wheel else ():
        if not any(c in name for c in "*?[") and not is_file(plugin.root / name):
            metadata.missing.append((name, plugin.line("[project]", name)))
    return metadata


def _add_entry_points(plugin: Plugin, project: dict[str, Any]) -> None:
    if "entry-points" in plugin.metadata.dynamic:
        raise CannotRunError(f"only the build knows the entry points; {_BUILD}")
    for group, entries in table_of(project, "entry-points").items():
        plugin.groups[group] = plugin.line("entry-points", group)
        for name, value in entries.items() if isinstance(entries, dict) else ():
            place = plugin.line("entry-points", group, name)
            if isinstance(value, dict):
                message = f'the group has to be in quotes: [project.entry-points."{group}.{name}"]'
                plugin.problems.append(Fault(place, message))
            else:
                plugin.entry_points.append(EntryPoint(group, name, str(value), place))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _read_package(plugin: Plugin) -> None:
    """Find the packages that the entry points name, else the one named after the project."""
    names = [entry.module.partition(".")[0] for entry in plugin.entry_points]
    if plugin.metadata.name:
        names.append(re.sub(r"[-.]+", "_", plugin.metadata.name).lower())
    for name in dict.fromkeys(names):
        if name.isidentifier() and name != "exo":
            _add_package(plugin, name)


def _add_package(plugin: Plugin, name: str) -> None:
    """Wherever packages may lie, whatever the build tool is told."""
    places = (name, f"src/{name}", f"*/{name}", f"*/*/{name}", f"{name}.py", f"src/{name}.py")
    for pattern in places:
        for folder in sorted(plugin.root.glob(pattern)):
            base = folder.relative_to(plugin.root).parent
            if _NO_PACKAGES & set(base.parts) or any(p.startswith(".") for p in base.parts):
                continue
            plugin.bases[name] = base.as_posix().removeprefix(".")
            known, size = set[str](), 0
            for path in [folder] if folder.suffix else files.python_files(folder):
                size += len(_add_module(plugin, base, path, known).data)
                if size > files.MAX_SOURCE:
                    most = files.MAX_SOURCE // 1_000_000
                    raise CannotRunError(f"{name} has more than {most} MB of Python")
            return


def _add_module(plugin: Plugin, base: Path, path: Path, known: set[str]) -> Module:
    inside = path.relative_to(plugin.root / base).with_suffix("").as_posix().replace("/", ".")
    module = Module(inside.removesuffix(".__init__"), path.relative_to(plugin.root).as_posix())
    module.problem = files.refused_link(path, plugin.root, known)
    try:
        module.data = b"" if module.problem else files.read_bytes(path)
    except UnreadableError as error:
        module.problem = str(error)
    plugin.package.modules[module.name] = module
    return module
