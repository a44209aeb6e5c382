"""The checker's imports have no circle, and its plugin's process none of what is around it."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import exo_engine_check

ROOT = Path(exo_engine_check.__file__).parent
MODULES = {
    ".".join(("exo_engine_check", *path.relative_to(ROOT).with_suffix("").parts)): path
    for path in ROOT.rglob("*.py")
    if not any(part.startswith("standin") for part in path.relative_to(ROOT).parts)
}


def imports(name: str, path: Path) -> set[str]:
    """The modules of the checker that one imports, wherever the import stands."""
    modules = set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                modules.add(whole if whole in MODULES or f"{whole}.__init__" in MODULES else base)
    packages = {f"{module}.__init__" for module in modules}
    return (modules | packages) & MODULES.keys()


GRAPH = {name: imports(name, path) for name, path in MODULES.items()}


def test_the_checkers_imports_have_no_circle() -> None:
    assert len(list(TopologicalSorter(GRAPH).static_order())) > 30


def test_the_plugins_process_imports_nothing_of_the_checker_around_it() -> None:
    inside = "exo_engine_check.inside."
    for name in GRAPH:
        if name.startswith(inside):
            assert {other for other in GRAPH[name] if not other.startswith(inside)} == set(), name
