"""CAPABILITIES.md: written from a run, and a fault where it says more than one."""

from pathlib import Path

import pytest
from checking import PLUGINS, plugin, run
from exo_engine_check.capabilities import ROWS, worth, write
from exo_engine_check.checks import running_checks
from exo_engine_check.report import Report


def rows(table: Path) -> dict[str, list[str]]:
    """The cells of each row."""
    lines = table.read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    return {row: of_row for row, *of_row in cells if row in ROWS}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of a plugin that declares what it can't do, and leaves exo's faults."""
    copy = plugin(tmp_path_factory.mktemp("report"))
    config = copy / "pyproject.toml"
    text = config.read_text(encoding="utf-8") + '\n[tool.exo-engine.cannot]\nsampling = "a toy"\n'
    config.write_text(text, encoding="utf-8")
    assert run(copy, "--report", copy / "CAPABILITIES.md")[0] == 0
    return copy / "CAPABILITIES.md"


def test_every_row_has_a_check_and_every_check_a_row_that_is_one() -> None:
    named = {check.row for check in running_checks().values()} - {""}
    assert named == set(ROWS)


def test_a_table_has_what_the_run_reports(table: Path) -> None:
    assert rows(table) == {
        "lossless text": ["partly (9 of 10)", "not run", ""],
        "streaming": ["yes", "not run", ""],
        "cancel": ["no", "not run", ""],
        "sampling": ["no", "not run", "a toy"],
        "split by layers": ["partly (2 of 3)", "not run", ""],
        "whole model in a cluster": ["no", "not run", ""],
        "batching": ["not run", "not run", ""],
        "reuse": ["not run", "not run", ""],
        "precision": ["yes", "not run", ""],
        "metrics": ["yes", "not run", ""],
        "faults": ["partly (1 of 9)", "not run", ""],
    }


REPORT = Report(host="exo itself", can={"metrics": "partly (2 of 3)"}, cannot={"metrics": "a | b"})


@pytest.mark.parametrize("cell", ["yes", "partly (9 of 10)"])
def test_a_table_that_says_more_is_a_fault_and_stays(tmp_path: Path, cell: str) -> None:
    table = tmp_path / "CAPABILITIES.md"
    table.write_text(f"| metrics | yes | {cell} | |\n", encoding="utf-8")
    [fault] = write(REPORT, table)
    assert fault.message == f"metrics is declared as {cell}, and the run gives partly (2 of 3)"
    assert rows(table) == {"metrics": ["yes", cell, ""]}


def test_such_a_table_fails_the_command(table: Path) -> None:
    text = table.read_text(encoding="utf-8")
    more = table.with_name("MORE.md")
    more.write_text(text.replace("sampling | no", "sampling | yes"), encoding="utf-8")
    code, out, _ = run(table.parent, "--report", more)
    assert code == 1
    assert "EX004" in out
    assert "MORE.md: sampling is declared as yes, and the run gives no" in out


@pytest.mark.parametrize("cell", ["no", "not run", "partly (1 of 3)", "partly (2 of 3)"])
def test_a_table_that_says_no_more_is_brought_up_to_date(tmp_path: Path, cell: str) -> None:
    table = tmp_path / "CAPABILITIES.md"
    table.write_text(f"| metrics | yes | {cell} | |\n", encoding="utf-8")
    assert list(write(REPORT, table)) == []
    assert rows(table)["metrics"][:2] == ["yes", "partly (2 of 3)"]


def test_a_report_wants_a_whole_run(tmp_path: Path) -> None:
    table = tmp_path / "CAPABILITIES.md"
    for option in ("--static", "--select=EX8", "--ignore=EX8"):
        code, _, err = run(PLUGINS / "steps", "--report", table, option)
        assert (code, "all checks" in err) == (2, True)
    assert not table.exists()


@pytest.mark.parametrize("cell", ["no", "not run", "partly (3 of 0)", "partly", "perhaps", ""])
def test_a_cell_that_promises_nothing(cell: str) -> None:
    assert worth(cell) == 0


def test_cells_are_compared() -> None:
    assert worth("yes") > worth("partly (9 of 10)") > worth("partly (8 of 10)") > worth("no")
