"""Tables of TOML and of ini files, and the lines where they stand."""

import configparser
import functools
import re
from dataclasses import dataclass, field
from typing import Any

from .findings import Place

# Without nested repetition: a hostile line costs what it is long.
_PART = re.compile(r"""[ \t]*(?:"([^"\n]*)"|'([^'\n]*)'|([\w-]+))[ \t]*(\.?)""")


@dataclass(frozen=True)
class Ini:
    """A file of sections and keys."""

    file: str
    text: str = ""
    sections: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, file: str, text: str, **options: Any) -> "Ini":
        """Names keep their case, as importlib.metadata reads them. Raises configparser.Error."""
        parser = configparser.ConfigParser(interpolation=None, strict=False, **options)
        parser.optionxform = str  # type: ignore[assignment,method-assign]  # configparser's own way
        parser.read_string(text)
        return cls(file, text, {name: dict(parser[name]) for name in parser.sections()})

    def get(self, section: str, key: str) -> str:
        """A value, under the name with - too."""
        values = self.sections.get(section, {})
        return values.get(key) or values.get(key.replace("_", "-")) or ""

    @functools.cached_property
    def _lines(self) -> dict[str, list[int]]:
        """Each line without its space and brackets, and each key, to where they stand."""
        found: dict[str, list[int]] = {}
        for number, line in enumerate(self.text.splitlines(), 1):
            plain = line.strip().strip("[]")
            for form in {plain, plain.split("=")[0].strip(), plain.split(":")[0].strip()}:
                found.setdefault(form, []).append(number)
        return found

    def place(self, text: str, below: str = "") -> Place:
        """The first line that is a text, or its key, from the line of another on."""
        start = self._lines.get(below.strip("[]"), [0])[0]
        lines = self._lines.get(text.strip().strip("[]"), [0])
        return Place(self.file, next((line for line in lines if line >= start), lines[0]))


def lines_of(text: str) -> dict[tuple[str, ...], int]:
    """The first line of every table and key of TOML, in one pass."""
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        start = line.lstrip()
        if start.startswith("["):
            path, end = _dotted(start, 2 if start.startswith("[[") else 1)
            if path and start[end : end + 1] == "]":
                table = path
                found.setdefault(path, number)
        else:
            path, end = _dotted(start, 0)
            if path and start[end : end + 1] == "=":
                found.setdefault((*table, *path), number)
    return found


def _dotted(line: str, begin: int) -> tuple[tuple[str, ...], int]:
    """The parts of a dotted name, and where it ends."""
    parts: list[str] = []
    while match := _PART.match(line, begin):
        parts.append(next(group for group in match.groups() if group is not None))
        begin = match.end()
        if not match[4]:
            break
    return tuple(parts), begin


def table_of(data: Any, *keys: str) -> dict[str, Any]:
    """A table inside a table; empty where there is none."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def tables_of(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
