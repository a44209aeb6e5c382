"""Writes docs/checks.md from the checks' own docstrings: python tests/check/manual.py"""

from pathlib import Path

from exo_engine_check.run import all_checks

PAGE = Path(__file__).resolve().parents[2] / "docs" / "checks.md"
HEAD = """\
# The checks

What `exo-engine check` looks at; [checking.md](checking.md) says how to use it. This page is
written from the checks themselves by `python tests/check/manual.py`. Files and lines are those of
[exo's fork](https://github.com/jfreed-dev/exo-rkllama) at 0c831d3.
"""
OF_EXO = "A fault of exo's own: a plugin may leave it, and `--strict` counts it."


def page() -> str:
    """The page: a heading an id, its title, and the manual."""
    parts = [HEAD]
    for name, check in all_checks().items():
        note = [f"{OF_EXO}\n"] if check.host_fault else []
        parts += [f"## {name}\n", f"**{check.title()}.**\n", f"{check.manual()}\n", *note]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
