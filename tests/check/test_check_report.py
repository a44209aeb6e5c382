"""CAPABILITIES.md: written from a run, and a fault where it says more than one."""

from pathlib import Path

import pytest
from checking import PLUGINS, plugin, run
from exo_engine_check.capabilities import ROWS, is_whole, worth, write
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("exo_engine_check.processes.ANSWER_SECONDS", 1.5)
        assert run(copy, "--report", copy / "CAPABILITIES.md")[0] == 0
    return copy / "CAPABILITIES.md"


def test_every_row_has_a_check_and_every_check_a_row_that_is_one() -> None:
    named = {check.row for check in running_checks().values()} - {""}
    assert named == set(ROWS)


def test_a_table_has_what_the_run_reports(table: Path) -> None:
    assert rows(table) == {
        "answers": ["yes", "yes", ""],
        "lossless text": ["partly (9 of 10)", "", ""],
        "streaming": ["yes", "yes", ""],
        "cancel": ["no", "yes", ""],
        "sampling": ["no", "yes", "a toy"],
        "penalties": ["", "no", ""],
        "logprobs": ["", "no", ""],
        "tools": ["", "yes", ""],
        "images": ["", "no", ""],
        "split by layers": ["partly (2 of 3)", "", ""],
        "whole model in a cluster": ["no", "", ""],
        "batching": ["not run", "", ""],
        "reuse": ["not run", "", ""],
        "precision": ["yes", "", ""],
        "metrics": ["yes", "", ""],
        "faults": ["partly (1 of 9)", "yes", ""],
    }


def report(cell: str) -> Report:
    """That of a run on exo 0.0 alone."""
    cells = {"metrics": {"0.0": cell, "0.3": "not run"}}
    return Report(hosts={"0.0": "exo 0.0 itself"}, can=cells, cannot={"metrics": "a | b"})


@pytest.mark.parametrize("cell", ["yes", "partly (9 of 10)"])
@pytest.mark.parametrize("less", ["partly (2 of 3)", "no", "not there"])
def test_a_table_that_says_more_is_a_fault_and_stays(tmp_path: Path, cell: str, less: str) -> None:
    table = tmp_path / "CAPABILITIES.md"
    table.write_text(f"| metrics | {cell} | yes | |\n", encoding="utf-8")
    [fault] = write(report(less), table)
    assert fault.message == f"metrics on exo 0.0 is declared as {cell}, and the run gives {less}"
    assert rows(table) == {"metrics": [cell, "yes", ""]}


def test_what_was_not_run_is_no_word_against_the_table(tmp_path: Path) -> None:
    table = tmp_path / "CAPABILITIES.md"
    table.write_text("| metrics | yes | partly (1 of 3) | |\n", encoding="utf-8")
    assert list(write(report("not run"), table)) == []
    assert rows(table)["metrics"][:2] == ["yes", "partly (1 of 3)"]


def test_such_a_table_fails_the_command(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exo_engine_check.processes.ANSWER_SECONDS", 1.5)
    text = table.read_text(encoding="utf-8")
    more = table.with_name("MORE.md")
    more.write_text(text.replace("sampling | no", "sampling | yes"), encoding="utf-8")
    code, out, _ = run(table.parent, "--report", more)
    assert code == 1
    assert "EX004" in out
    assert "MORE.md: sampling on exo 0.0 is declared as yes, and the run gives no" in out


@pytest.mark.parametrize("cell", ["no", "not run", "partly (1 of 3)", "partly (2 of 3)"])
def test_a_table_that_says_no_more_is_brought_up_to_date(tmp_path: Path, cell: str) -> None:
    table = tmp_path / "CAPABILITIES.md"
    table.write_text(f"| metrics | {cell} | yes | |\n", encoding="utf-8")
    assert list(write(report("partly (2 of 3)"), table)) == []
    assert rows(table)["metrics"][:2] == ["partly (2 of 3)", "yes"]


@pytest.mark.parametrize(
    ("cells", "whole"),
    [
        ({"0.0": "yes", "0.3": ""}, True),
        ({"0.0": "yes", "0.3": "not there"}, True),
        ({"0.0": "no", "0.3": "yes"}, False),
        ({"0.0": "not run", "0.3": ""}, False),
    ],
)
def test_a_row_is_whole_where_no_exo_lacks_it(cells: dict[str, str], whole: bool) -> None:
    assert is_whole(cells) is whole


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
