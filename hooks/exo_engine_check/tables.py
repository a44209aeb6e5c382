"""Tables of TOML, and the lines where they stand."""

import re
from typing import Any

# Without nested repetition: a hostile line costs what it is long.
_PART = re.compile(r"""[ \t]*(?:"([^"\n]*)"|'([^'\n]*)'|([\w-]+))[ \t]*(\.?)""")


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
