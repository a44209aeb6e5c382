"""EX2: the distribution, and what it does to exo's environment."""

import re
from collections.abc import Iterator
from pathlib import Path

from .. import host
from ..files import UnreadableError, is_file, is_folder, read_text
from ..findings import Check, Finding, Place, reports
from ..plugin import Plugin
from ..tables import table_of


class Packaging(Check):
    family = "exo-packaging"


def project_of(requirement: str) -> str:
    """The normal form of the project that a requirement names."""
    name = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", requirement)
    return re.sub(r"[-_.]+", "-", name[1]).lower() if name else ""


def is_exo(requirement: str, extra: str) -> bool:
    """Whether it asks for exo; an extra may name the host itself, by its address."""
    return project_of(requirement) == "exo" and not (extra and "@" in requirement)


class EX201(Packaging):
    "exo is not among the dependencies"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """PyPI's `exo` is another project, for yeast genomics, and it installs a module `exo` over
        the host's. The host is there before the plugin (setup.py:80 of exo). Take `exo` out;
        `exo-engine check --fix` does."""
        for text, extra, place in exo_plugin.metadata.requirements:
            if is_exo(text, extra):
                where = f"the extra {extra}" if extra else "the dependencies"
                other = "that is another project on PyPI"
                why = "the host is there before its plugins" if "@" in text else other
                yield Finding(place, f"{text} is among {where}: {why}")


class EX202(Packaging):
    "The dependencies admit what exo pins"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """A plugin lives in exo's environment, and exo pins exact versions (setup.py:8-33 of exo).
        A requirement that refuses one of them makes pip change exo, or refuse the plugin. Widen the
        requirement until it admits the pin."""
        for text, extra, place in exo_plugin.metadata.requirements:
            name = project_of(text)
            if extra or (name not in host.PINS and name not in host.BREAKS_PINS):
                continue
            if name in host.BREAKS_PINS:
                yield Finding(place, f"{text} brings {host.BREAKS_PINS[name]}")
            elif not _admits(text, host.PINS[name]):
                yield Finding(place, f"{text} refuses {name} {host.PINS[name]}, which exo has")


def _admits(text: str, version: str) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return True  # the build says it better
    for python in host.PYTHONS:
        environment = {"extra": "", "python_version": python, "python_full_version": f"{python}.0"}
        marker = requirement.marker
        if (marker is None or marker.evaluate(environment)) and not requirement.specifier.contains(
            version, prereleases=True
        ):
            return False
    return True


def _told(plugin: Plugin, key: str, noun: str) -> Iterator[Finding]:
    if plugin.problems:
        return
    if not plugin.metadata.has.get(key):
        yield Finding(plugin.metadata.place, f"the project names no {noun}")
    for name, place in plugin.metadata.missing.get(key, ()):
        yield Finding(place, f"the {noun} {name} is not here")


class EX203(Packaging):
    "There is a README"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """exo shows the name of an engine and no more (plugin_discovery.py:201-205): what hardware
        it needs and how it is set up stands in its README or nowhere. Write one and name it:
        `readme = "README.md"` in `[project]`."""
        yield from _told(exo_plugin, "readme", "README")


class EX204(Packaging):
    "There is a licence"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """Nobody may use what has no licence, and exo's fork is under GPL-3.0 (its LICENSE), so
        users will ask. Write `license = "Apache-2.0"` (or another) and `license-files =
        ["LICENSE"]`."""
        yield from _told(exo_plugin, "license", "licence")


class EX205(Packaging):
    "requires-python is there and admits exo's Python"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """exo's numpy 2.0.0 (setup.py:15 of exo) has wheels for Python up to 3.12. Without
        `requires-python` pip installs the plugin on Pythons that it can't run on; with one that
        refuses 3.11 and 3.12 it can't live beside exo. Write `requires-python = ">=3.11"`."""
        if exo_plugin.problems:
            return
        wanted = exo_plugin.metadata.requires_python
        if not wanted:
            if "requires-python" not in exo_plugin.metadata.dynamic:
                yield Finding(exo_plugin.metadata.place, "requires-python is missing")
            return
        from packaging.specifiers import InvalidSpecifier, SpecifierSet

        place = exo_plugin.metadata.python_place
        try:
            specifier = SpecifierSet(wanted)
        except InvalidSpecifier:
            yield Finding(place, f'requires-python is "{wanted}", which is no version specifier')
            return
        if not any(specifier.contains(f"{python}.9") for python in host.PYTHONS):
            yield Finding(
                place, f'requires-python is "{wanted}", which refuses exo\'s 3.11 and 3.12'
            )


class EX206(Packaging):
    "The package says that it has types"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """Without the empty file `py.typed` type checkers take the package for untyped (PEP 561),
        and exo itself has no types that would catch a wrong signature
        (inference_engine.py:237-277). `exo-engine check --fix` adds the file."""
        for name, base in exo_plugin.bases.items():
            module = exo_plugin.package.modules.get(name)
            where = f"{base}/{name}" if base else name
            marker = exo_plugin.root.joinpath(*where.split("/"), "py.typed")
            if module is not None and module.is_package and not is_file(marker):
                yield Finding(Place(where), "py.typed is missing")


class EX207(Packaging):
    "copier's answers and the package agree"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """`copier update` renders the template with the stored answers: where they differ from what
        the project is called now, it brings the old names back. exo finds the plugin by the names
        in pyproject.toml (plugin_discovery.py:88). Write the old names back: a plugin's names can't
        change by an update. For other names, render a new plugin."""
        path = exo_plugin.root.joinpath(".copier-answers.yml")
        if exo_plugin.is_wheel or exo_plugin.problems or not is_file(path):
            return
        answers, problem = _answers(path)
        if problem:
            yield Finding(Place(path.name), problem)
        actual: dict[str, set[str | None]] = {
            "project_name": {exo_plugin.metadata.name},
            "engine_name": {e.name for e in exo_plugin.in_group(host.GROUP_ENGINES)},
            "engine_class": {e.attribute for e in exo_plugin.in_group(host.GROUP_ENGINES)},
        }
        for key, values in actual.items():
            answer, line = answers.get(key, ("", 0))
            if answer and values and answer not in values:
                now = ", ".join(sorted(map(str, values)))
                message = f"the answer {key} is {answer}, but the project has {now}"
                yield Finding(Place(path.name, line), message)


_ANSWER = re.compile(r"""^(\w+): *["']?([\w.-]+)["']?\s*$""")


def _answers(path: Path) -> tuple[dict[str, tuple[str, int]], str]:
    """The plain answers of the file, each with its line, and why there are none."""
    try:
        lines = read_text(path).splitlines()
    except UnreadableError as error:
        return {}, f"the file {error}"
    matches = ((number, _ANSWER.match(line)) for number, line in enumerate(lines, 1))
    return {match[1]: (match[2], number) for number, match in matches if match}, ""


class EX208(Packaging):
    "The wheel takes in the package"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """The wheel holds what the build tool is told. A folder that was renamed is left out, and
        exo then fails to import it (plugin_discovery.py:184). Name the package's folder in
        `[tool.hatch.build.targets.wheel] packages`; check the wheel itself too."""
        keys = ("tool", "hatch", "build", "targets", "wheel")
        told = table_of(exo_plugin.pyproject, *keys).get("packages")
        if exo_plugin.is_wheel or exo_plugin.build_moves_folders or not isinstance(told, list):
            return
        place = exo_plugin.line(*keys, "packages")
        folders = [str(name).strip("/").removeprefix("./") for name in told]
        for name in folders:
            if not is_folder(exo_plugin.root.joinpath(*name.split("/"))):
                yield Finding(place, f"the wheel's package {name} is not here")
        kept = {name.rpartition("/")[2] for name in folders}
        complete = all(is_folder(exo_plugin.root.joinpath(*name.split("/"))) for name in folders)
        for name in exo_plugin.bases if complete else ():
            if name not in kept:
                yield Finding(place, f"the package {name} is not among the wheel's packages")


class EX209(Packaging):
    "Neither the project nor a package is called exo"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """A distribution called `exo` replaces the host when it is installed, and a package `exo`
        hides it (setup.py:81 of exo). Choose a name such as `exo-myengine` with the package
        `exo_myengine`."""
        if project_of(exo_plugin.metadata.name or "") == "exo":
            yield Finding(exo_plugin.line("project", "name"), "the project is called exo")
        for entry in exo_plugin.entry_points:
            if entry.group in host.GROUPS and entry.module.partition(".")[0] == "exo":
                yield Finding(entry.place, f"{entry} leads into exo's own package: {entry.module}")
