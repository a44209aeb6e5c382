"""EX0: the project can be read."""

from collections.abc import Iterator

from ..findings import Check, Finding, Place, reports
from ..plugin import Plugin, table_of


class EX001(Check):
    "The project's metadata can be read"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """pip can't build or install what it can't read, and exo finds a plugin only through the
        entry points of an installed distribution (plugin_discovery.py:60). Mend the file; the build
        says the same: `python -m build`."""
        yield from exo_plugin.problems


class EX002(Check):
    "Every module of the package can be read"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """A module that Python can't parse fails when it is imported: exo passes over models and
        detectors with no word below DEBUG=1 (plugin_discovery.py:118,142), and an engine ends exo
        at its start (plugin_discovery.py:184). Mend the file, or take it out of the package."""
        for module in exo_plugin.package:
            _ = module.tree
            if module.problem:
                yield Finding(Place(module.path, module.problem_line), module.problem)


class EX004(Check):
    "What the plugin is said to be able to do is so"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """Who chooses a plugin reads what it can do, and a promise that no longer holds is found by
        its users. Where CAPABILITIES.md says more than a run shows, mend the plugin, or take the
        row out. What it can't do by design has its reason in `[tool.exo-engine.cannot]`, as
        `reuse = "the server keeps its own"`, which goes when it can."""
        from ..capabilities import ROWS

        for row, why in table_of(exo_plugin.settings, "cannot").items():
            place = exo_plugin.line("[tool.exo-engine.cannot]", row)
            if row not in ROWS:
                yield Finding(place, f"{row} is no row of CAPABILITIES.md: {', '.join(ROWS)}")
            elif not (isinstance(why, str) and why.strip()):
                yield Finding(place, f"{row} is declared without a reason")


class EX003(Check):
    "Every ignored check has a reason"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """Nobody can tell later whether an ignore without a reason may go. Write the reason beside
        the id, as a table: `[tool.exo-engine.ignore]` with `EX501 = "the SDK can't be asked"`.
        `[tool.repo-review.ignore]` has the same form, and is read too."""
        from . import all_checks

        known = all_checks()
        for table, name, why in exo_plugin.ignores:
            place = exo_plugin.line(f"[tool.{table}", "ignore", name)
            if table == "exo-engine" and name not in known:
                yield Finding(place, f"there is no check {name}")
            elif name in known and not why:
                yield Finding(place, f"{name} is ignored without a reason")
