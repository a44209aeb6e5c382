"""Writes the README's table of checks: python -m exo_engine_check.table README.md"""

import sys
from pathlib import Path

from .formats import table

BEGIN, END = "<!-- the table of checks: begin -->\n", "<!-- the table of checks: end -->"


def with_table(text: str) -> str:
    """A README with the table between its two comments. Raises ValueError without them."""
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError("the README lacks the two comments of the table")
    return f"{before}{found}{table()}{ended}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
