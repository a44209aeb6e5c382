"""EX2: the distribution, and what it does to exo's environment."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path

from .. import host
from ..files import UnreadableError, is_file, read_text
from ..inside.check import Check
from ..plugin import Plugin
from ..report import Fault, Place


@functools.cache
def project_of(requirement: str) -> str:
    """The normal form of the project that a requirement names."""
    name = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", requirement)
    return re.sub(r"[-_.]+", "-", name[1]).lower() if name else ""


def is_exo(requirement: str, extra: str) -> bool:
    """Whether it asks for exo; an extra may name the host itself, by its address."""
    return project_of(requirement) == "exo" and not (extra and "@" in requirement)


class EX201(Check):
    "exo is not among the dependencies"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """PyPI's `exo` is another project, for yeast genomics, and it installs a module `exo` over
        the host's. The host is there before the plugin (setup.py:80 of exo). Take `exo` out."""
        for text, extra in plugin.metadata.requirements:
            if is_exo(text, extra):
                where = f"the extra {extra}" if extra else "the dependencies"
                other = "that is another project on PyPI"
                why = "the host is there before its plugins" if "@" in text else other
                place = plugin.line_of(text, extra)
                yield Fault(place, f"{text} is among {where}: {why}")


class EX202(Check):
    "The dependencies admit what exo pins"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """A plugin lives in exo's environment, and exo pins exact versions (setup.py:8-33 of exo).
        A requirement that refuses one of them makes pip change exo, or refuse the plugin. Widen the
        requirement until it admits the pin."""
        for text, extra in plugin.metadata.requirements:
            name = project_of(text)
            if extra or (name not in host.PINS and name not in host.BREAKS_PINS):
                continue
            if name in host.BREAKS_PINS:
                brings = f"{text} brings {host.BREAKS_PINS[name]}"
                yield Fault(plugin.line_of(text, extra), brings)
            elif not _admits(text, host.PINS[name]):
                place = plugin.line_of(text, extra)
                yield Fault(place, f"{text} refuses {name} {host.PINS[name]}, which exo has")


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


class EX203(Check):
    "There is a README, and a licence"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """exo shows the name of an engine and no more (plugin_discovery.py:201-205): what hardware
        it needs and how it is set up stands in its README or nowhere. Nobody may use what has no
        licence, and exo's fork is under GPL-3.0, so users will ask. Write `readme = "README.md"`,
        `license = "Apache-2.0"` (or another) and `license-files = ["LICENSE"]`."""
        metadata = plugin.metadata
        for noun, is_named in metadata.has.items() if not plugin.problems else ():
            if not is_named:
                yield Fault(metadata.place, f"the project names no {noun}")
        for name, place in metadata.missing:
            yield Fault(place, f"the project names {name}, which is not here")


class EX205(Check):
    "requires-python is there and admits exo's Python"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """exo's numpy 2.0.0 (setup.py:15 of exo) has wheels for Python up to 3.12. Without
        `requires-python` pip installs the plugin on Pythons that it can't run on; with one that
        refuses 3.11 and 3.12 it can't live beside exo. Write `requires-python = ">=3.11"`."""
        from packaging.specifiers import InvalidSpecifier, SpecifierSet

        metadata = plugin.metadata
        text, place = metadata.requires_python, plugin.line("[project]", "requires-python")
        if not text:
            if not plugin.problems and "requires-python" not in metadata.dynamic:
                yield Fault(metadata.place, "requires-python is missing")
            return
        try:
            specifier = SpecifierSet(text)
        except InvalidSpecifier:
            yield Fault(place, f'requires-python is "{text}", which is no version specifier')
            return
        if not any(specifier.contains(f"{python}.9") for python in host.PYTHONS):
            message = f'requires-python is "{text}", which refuses exo\'s 3.11 and 3.12'
            yield Fault(place, message)


class EX206(Check):
    "The package says that it has types"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """Without the empty file `py.typed` type checkers take the package for untyped (PEP 561),
        and exo itself has no types that would catch a wrong signature
        (inference_engine.py:237-277). Add the file."""
        for name, base in plugin.bases.items():
            folder = Path(base, name)
            marker = plugin.root / folder / "py.typed"
            if name in plugin.package.modules and marker.parent.is_dir() and not is_file(marker):
                yield Fault(Place(folder.as_posix()), "py.typed is missing")


class EX207(Check):
    "copier's answers and the package agree"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """`copier update` renders the template with the stored answers: where they differ from what
        the project is called now, it brings the old names back. exo finds the plugin by the names
        in pyproject.toml (plugin_discovery.py:88). Write the old names back: a plugin's names can't
        change by an update. For other names, render a new plugin."""
        path = plugin.root / ".copier-answers.yml"
        engines = plugin.in_group(host.GROUP_ENGINES)
        actual = {
            "project_name": {str(plugin.metadata.name)},
            "engine_name": {entry.name for entry in engines},
            "engine_class": {entry.attribute for entry in engines},
        }
        try:
            lines = read_text(path).splitlines() if is_file(path) else []
        except UnreadableError as error:
            yield Fault(Place(path.name), f"the file {error}")
            return
        for number, line in enumerate(lines if not plugin.problems else (), 1):
            answer = re.match(r"""(\w+): *["']?([\w.-]+)["']?\s*$""", line)
            now = actual.get(answer[1]) if answer else None
            if answer and now and answer[2] not in now:
                message = f"the answer {answer[1]} is {answer[2]}, but the project has {min(now)}"
                yield Fault(Place(path.name, number), message)
