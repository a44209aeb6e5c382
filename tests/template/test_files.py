"""Which files a plugin of each variant has: a snapshot, so that none comes or goes unnoticed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import variants

# Whose files they are in [...], and their paths. `python -m pytest --update-files` writes it anew.
SNAPSHOT = Path(__file__).parent / "files.txt"


def snapshot(plugin_of: Callable[[str], Path]) -> str:
    """Every path of every plugin, under the variants that have it."""
    owners: dict[str, list[str]] = {}
    for variant in variants():
        plugin = plugin_of(variant)
        for path in plugin.rglob("*"):
            name = path.relative_to(plugin).as_posix().replace(f"exo_{variant}/", "PACKAGE/")
            if path.is_file() and "__pycache__" not in name and not name.startswith(".git/"):
                owners.setdefault(name, []).append(variant)
    lines: list[str] = []
    for group in sorted(set(map(tuple, owners.values())), key=lambda group: (-len(group), group)):
        lines += ["", f"[{' '.join(group)}]"]
        lines += sorted(name for name, have in owners.items() if tuple(have) == group)
    return "\n".join(lines[1:]) + "\n"


def test_a_plugin_has_these_files(
    plugin_of: Callable[[str], Path], pytestconfig: pytest.Config
) -> None:
    paths = snapshot(plugin_of)
    if pytestconfig.getoption("--update-files"):
        SNAPSHOT.write_text(paths, encoding="utf-8")
    assert paths.splitlines() == SNAPSHOT.read_text(encoding="utf-8").splitlines()
