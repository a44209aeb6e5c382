"""Tables of TOML and of ini files, and the lines where they stand."""

import configparser
import re
from dataclasses import dataclass, field
from typing import Any

from .findings import Place

_HEADER = re.compile(r"^\s*\[\[?\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(
    r"""^\s*((?:"[^"]*"|'[^']*'|[\w-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[\w-]+))*)\s*="""
)
_PART = re.compile(r""""([^"]*)"|'([^']*)'|([^.\s]+)""")


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

    def place(self, text: str, below: str = "") -> Place:
        """The first line that begins with a text, else holds it, from a line on."""
        lines = self.text.splitlines()
        start = next((n for n, line in enumerate(lines) if line.startswith(below)), 0)
        rest = list(enumerate(lines[start:], start + 1))
        begins = re.compile(rf"\W*{re.escape(text)}(?![\w.-])")
        line = next((n for n, line in rest if begins.match(line)), 0)
        return Place(self.file, line or next((n for n, line in rest if text in line), 0))


def line_of(text: str, path: tuple[str, ...]) -> int:
    """The first line that defines most of a dotted path of TOML; 0 where nothing of it is there."""
    best, best_length = 0, 0
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = _parts(header[1])
            found = table
        elif key := _KEY.match(line):
            found = (*table, *_parts(key[1]))
        else:
            continue
        if found == path[: len(found)] and len(found) > best_length:
            best, best_length = number, len(found)
    return best


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple("".join(groups) for groups in _PART.findall(dotted))


def table_of(data: Any, *keys: str) -> dict[str, Any]:
    """A table inside a table; empty where there is none."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def tables_of(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
