"""Imports go down and in no circle, and the kit imports nothing of its owner but the names."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import exo_kit

ROOT = Path(exo_kit.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
    if path.parent != ROOT or path.name != "__init__.py"
}
# What of the plugin its kit may import.
GUEST = {"names"}
# A part of the kit imports of the parts below it alone, wherever the import stands.
ABOVE = {
    "kit.engine": ("kit.command", "kit.hosts"),
    "kit.text": ("kit.command", "kit.hosts", "kit.engine"),
    "kit.repository": ("kit.command", "kit.hosts", "kit.engine", "kit.text"),
    "kit.contract": ("kit.command", "kit.hosts", "kit.engine"),
    "kit.cards": ("kit.command", "kit.hosts", "kit.engine", "kit.text"),
    "kit.hosts": ("kit.command",),
}
# What runs in the command and in exo's own processes, where no model is: they start at once.
BESIDE = {"__main__", "kit.hosts.exo_0_3.launcher"}


def imports(name: str, everywhere: bool) -> set[str]:
    """The plugin's modules that one imports: when it is imported itself, or `everywhere` in it."""
    path = MODULES[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    modules = set[str]()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if everywhere else at_import(tree.body):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            whole = ".".join(part for part in base if part)
            for alias in node.names:
                inner = f"{whole}.{alias.name}".lstrip(".")
                modules.add(inner if inner in MODULES else whole)
    return modules & MODULES.keys() - {name}


def at_import(body):
    """Statements that run when a module is imported, but for what only a type checker reads."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield from at_import(node.body + node.orelse)
        elif isinstance(node, ast.Try):
            yield from at_import(node.body)


def test_no_import_goes_in_a_circle():
    graph = {name: imports(name, everywhere=False) for name in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES) > 40


def test_no_import_goes_up():
    up = [
        f"{name} imports {other}"
        for name in MODULES
        for part, above in ABOVE.items()
        if f"{name}.".startswith(f"{part}.")
        for other in imports(name, everywhere=True)
        if any(f"{other}.".startswith(f"{each}.") for each in above)
    ]
    assert up == []


def test_the_kit_imports_of_its_owner_the_names_alone():
    kit = [name for name in MODULES if name.startswith("kit")]
    owners = {other for name in kit for other in imports(name, everywhere=True)}
    assert {other for other in owners if not other.startswith("kit")} <= GUEST


def test_the_hosts_share_nothing_but_what_is_below_them():
    for name in MODULES:
        for one, other in (("exo_0_0", "exo_0_3"), ("exo_0_3", "exo_0_0")):
            if name.startswith(f"kit.hosts.{one}"):
                assert [i for i in imports(name, everywhere=True) if other in i] == []


def test_what_runs_beside_a_model_imports_no_exo_by_itself_and_no_numpy():
    seen, ahead = set[str](), set(BESIDE)
    while ahead:
        seen |= ahead
        ahead = {other for name in ahead for other in imports(name, everywhere=False)} - seen
    assert seen > BESIDE
    for name in seen:
        for node in at_import(ast.parse(MODULES[name].read_text(encoding="utf-8")).body):
            if isinstance(node, ast.Import | ast.ImportFrom):
                line = ast.unparse(node).replace(",", " ")
                words = {word.partition(".")[0] for word in line.split()}
                # The contract's Array brings NumPy.
                assert not words & {"exo", "numpy", "jinja2", "Array"}, f"{name}: {line}"
