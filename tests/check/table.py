"""Writes the README's table of checks: python tests/check/table.py"""

from pathlib import Path

from exo_engine_check.checks import all_checks
from exo_engine_check.findings import manual, title

README = Path(__file__).resolve().parents[2] / "README.md"
BEGIN, END = "<!-- the table of checks: begin -->\n", "<!-- the table of checks: end -->"


def table() -> str:
    """The table, from the classes."""
    lines = ["| id | check | why, and how to mend it |", "| --- | --- | --- |"]
    for name, check in all_checks().items():
        text = " ".join(manual(check).split()).replace("|", "\\|")
        lines.append(f'| <a id="{name}"></a>{name} | {title(check)} | {text} |')
    return "\n".join(lines) + "\n"


def with_table(text: str) -> str:
    """A README with the table between its two comments. Raises ValueError without them."""
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError("the README lacks the two comments of the table")
    return f"{before}{found}{table()}{ended}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
