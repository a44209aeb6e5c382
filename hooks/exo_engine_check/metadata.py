"""What a distribution says of itself, in each of the forms that metadata has."""

import email.parser
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .files import UnreadableError, is_file, read_text, words
from .findings import Finding, Place
from .plugin import BARE_SETUP, Metadata, Plugin
from .tables import Ini, table_of


def metadata_of_tree(plugin: Plugin) -> Metadata:
    project = table_of(plugin.pyproject, "project")
    poetry = table_of(plugin.pyproject, "tool", "poetry")
    if not project and not poetry and plugin.setup_cfg.get("metadata", "name"):
        return _metadata_of_setup_cfg(plugin)
    path = ("tool", "poetry") if poetry and not project else ("project",)
    said = poetry | project
    found = Metadata(plugin.line(*path), _text(said.get("name")))
    found.dynamic = frozenset(_texts(said.get("dynamic")))
    found.requires_python = _text(said.get("requires-python"))
    found.python_place = plugin.line(*path, "requires-python")
    for text in _texts(project.get("dependencies")):
        found.requirements.append((text, "", plugin.line("project", "dependencies", text=text)))
    for extra, needs in table_of(project, "optional-dependencies").items():
        for text in _texts(needs):
            place = plugin.line("project", "optional-dependencies", extra, text=text)
            found.requirements.append((text, extra, place))
    if not project or "dependencies" in found.dynamic:
        _read_poetry_dependencies(plugin, found, poetry)
    readme = said.get("readme")
    named = readme.get("file") if isinstance(readme, dict) else readme
    files = [named] if isinstance(named, str) else _texts(named)
    inline = isinstance(readme, dict) and readme.get("text")
    found.readme = bool(files or inline or "readme" in found.dynamic)
    found.missing_readmes = _absent(plugin, files, plugin.line(*path, "readme"))
    license_ = said.get("license")
    named = license_.get("file") if isinstance(license_, dict) else None
    files = [*_texts(said.get("license-files")), *_texts([named])]
    found.license = bool(license_ or _names_license(_texts(said.get("classifiers"))))
    found.license |= "license" in found.dynamic
    found.missing_licenses = _absent(plugin, files, plugin.line(*path, "license-files"))
    return found


def _names_license(classifiers: Iterable[str]) -> bool:
    return any(text.startswith("License ::") for text in classifiers)


def _absent(plugin: Plugin, files: list[str], place: Place) -> list[tuple[str, Place]]:
    """Files that are named and not here; patterns are the build's."""
    plain = [name for name in files if not any(c in name for c in "*?[")]
    return [(name, place) for name in plain if not is_file(plugin.root.joinpath(name))]


def _read_poetry_dependencies(plugin: Plugin, found: Metadata, poetry: dict[str, Any]) -> None:
    path = ("tool", "poetry", "dependencies")
    extras = table_of(poetry, "extras")
    for name, told in table_of(poetry, "dependencies").items():
        place = plugin.line(*path, name)
        specifier = _specifier(told)
        if name != "python":
            optional = isinstance(told, dict) and told.get("optional")
            extra = next((key for key in extras if name in _texts(extras[key])), "optional")
            text = f"{name}{specifier or ''}"
            found.requirements.append((text, extra if optional else "", place))
        elif not found.requires_python:
            found.requires_python, found.python_place = specifier, place
            if specifier is None:
                found.dynamic |= {"requires-python"}


def _specifier(told: Any) -> str | None:
    """A dependency of Poetry's as pip spells it; None: it admits what can't be told."""
    if isinstance(told, dict):
        source = next((told[key] for key in ("git", "url", "path", "file") if key in told), None)
        if source is not None:
            return f" @ {source}"
        told = None if told.keys() & {"markers", "platform", "python"} else told.get("version")
    if not isinstance(told, str) or "|" in told:
        return None
    clauses = re.split(r"[\s,]+", re.sub(r"(?<=[<>=!~^])\s+", "", told.strip()))
    return ",".join(filter(None, map(_clause, clauses)))


_CLAUSE = re.compile(r"(\^|~(?!=)|)v?(\d+(?:\.\d+)*)(.*)")


def _clause(text: str) -> str:
    match = _CLAUSE.fullmatch(text)
    if match is None:
        return text.strip("*") and text
    operator, version, rest = match.groups()
    if not operator:
        return f"=={version}{rest}"
    numbers = [int(part) for part in version.split(".")]
    last = min(len(numbers), 2) - 1
    if operator == "^":
        last = next((n for n, number in enumerate(numbers) if number), len(numbers) - 1)
    upper = ".".join(map(str, [*numbers[:last], numbers[last] + 1]))
    return f">={version}{rest.removesuffix('.*')},<{upper}"


def _metadata_of_setup_cfg(plugin: Plugin) -> Metadata:
    cfg = plugin.setup_cfg
    found = Metadata(cfg.place("[metadata]"), cfg.get("metadata", "name"))
    if plugin.setup_py and not BARE_SETUP.search(plugin.setup_py):
        found.dynamic = words("dependencies license readme requires-python")
    found.requires_python = cfg.get("options", "python_requires")
    found.python_place = cfg.place("python_requires")
    extras = cfg.sections.get("options.extras_require", {})
    for extra, needs in {"": cfg.get("options", "install_requires"), **extras}.items():
        below = extra or "install_requires"
        if needs.startswith("file:"):
            found.dynamic |= {"dependencies"}
            continue
        for text in _items(needs, ";"):
            found.requirements.append((text, extra, cfg.place(text, below)))
    readme = cfg.get("metadata", "long_description")
    files = _items(readme.removeprefix("file:")) if readme.startswith("file:") else []
    found.readme = bool(readme) or "readme" in found.dynamic
    found.missing_readmes = _absent(plugin, files, cfg.place("long_description"))
    classifiers = cfg.get("metadata", "classifiers")
    named = _names_license(_items(classifiers)) or classifiers.startswith("file:")
    found.license = bool(cfg.get("metadata", "license") or named or "license" in found.dynamic)
    files = _items(cfg.get("metadata", "license_files") or cfg.get("metadata", "license_file"))
    found.missing_licenses = _absent(plugin, files, cfg.place("license"))
    return found


def _items(value: str, separator: str = ",") -> list[str]:
    """A list of setup.cfg: one item a line, or all on one."""
    items = value.splitlines() if "\n" in value else value.split(separator)
    return [item.strip() for item in items if item.strip() and not item.strip().startswith("#")]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def metadata_of_wheel(root: Path, info: Path) -> Plugin:
    plugin = Plugin(root, is_wheel=True, config=Place(f"{info.name}/METADATA"))
    try:
        plugin.text = read_text(info.joinpath("METADATA"))
    except UnreadableError as error:
        plugin.problems.append(Finding(plugin.config, f"the file {error}"))
    message = email.parser.HeaderParser().parsestr(plugin.text)
    found = Metadata(plugin.config, message["Name"], requires_python=message["Requires-Python"])
    found.python_place = plugin.config
    body = message.get_payload()
    found.readme = bool((isinstance(body, str) and body.strip()) or message["Description"])
    classifiers = message.get_all("Classifier") or []
    found.license = bool(
        message["License-Expression"] or message["License"] or _names_license(map(str, classifiers))
    )
    lines = Ini(plugin.config.path, plugin.text)
    for text in map(str, message.get_all("Requires-Dist") or []):
        extra = re.search(r"""extra\s*==\s*["']([^"']+)["']""", text)
        place = lines.place(f"Requires-Dist: {text}")
        found.requirements.append((text, extra[1] if extra else "", place))
    plugin.metadata = found
    return plugin
