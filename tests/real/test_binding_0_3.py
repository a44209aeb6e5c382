"""exo 0.3 as its authors left it: the binding of these tests, and the stand-in, agree with it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from nodes_0_3 import EXO_0_3_PYTHON, Namespace, namespace, node, why_not

pytestmark = [
    pytest.mark.skipif(bool(why := why_not()), reason=str(why)),
    pytest.mark.xdist_group("real-exo-0-3"),
]

STAND_IN = Path(__file__).parents[2] / "template" / "tests" / "standin_0_3"

# Runs on either exo: every record that the stand-in has, its fields, and which have to be given.
RECORDS = """
import ast, importlib, json, sys
from pathlib import Path
root = Path(sys.argv[1])
records = {}
for path in sorted(root.rglob("*.py")):
    imports = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ImportFrom)]
    names = [a.name for n in imports for a in n.names if n.module == "exo.records" and a.asname]
    module = ".".join(path.relative_to(root).with_suffix("").parts)
    for name in names:
        record = getattr(importlib.import_module(module), name)
        if hasattr(record, "model_fields"):
            records[f"{module}.{name}"] = {
                key: value.is_required() for key, value in record.model_fields.items()
            }
print(json.dumps(records))
"""


def records(python: str, *path: Path) -> dict[str, dict[str, bool]]:
    """{module.Record: {field: whether it has to be given}} of an exo."""
    env = {
        "PYTHONPATH": ":".join(map(str, path)),
        "EXO_DASHBOARD_DIR": "/",
        "EXO_RESOURCES_DIR": "/",
        "EXO_HOME": "/nonexistent",
    }
    command = [python, "-c", RECORDS, str(STAND_IN)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    result: dict[str, dict[str, bool]] = json.loads(done.stdout)
    return result


def test_every_record_of_the_stand_in_is_exo_s() -> None:
    ours, theirs = records(sys.executable, STAND_IN), records(EXO_0_3_PYTHON)
    assert len(ours) > 10
    # Where exo derives a field, or a test has no need for it.
    simpler = {"BoundInstance", "TextGeneration", "ShardMetadata"}
    for name, fields in ours.items():
        if name.rpartition(".")[2] in simpler:
            continue
        assert not fields.keys() - theirs[name].keys(), name
        required = {key for key, has_to_be in theirs[name].items() if has_to_be}
        assert required <= fields.keys(), f"{name}: exo wants {required - fields.keys()} too"


@pytest.fixture(scope="module")
def space() -> Iterator[Namespace]:
    with namespace() as own:
        yield own


def test_two_nodes_find_each_other_and_elect_another_master(
    space: Namespace, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(node(space, tmp_path / "a"))
        second = stack.enter_context(node(space, tmp_path / "b", peer=first))

        def both() -> bool | None:
            states = [each.get("/state") for each in (first, second)]
            full = all(state and len(state["topology"]["nodes"]) == 2 for state in states)
            return full or None

        first.wait_for("topology of two", both)
        first.stop()

        def alone() -> bool | None:
            state = second.get("/state")
            return (state is not None and len(state["topology"]["nodes"]) == 1) or None

        second.wait_for("master of its own", alone)
