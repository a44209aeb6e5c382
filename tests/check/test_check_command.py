"""The command: exit codes, formats, choosing and ignoring checks."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import guide_plugin as guide
import pytest
import yaml
from checking import PLUGINS, faults, plugin, run
from exo_engine_check.cli import FORMATS
from exo_engine_check.formats import write
from exo_engine_check.run import Options, all_checks
from exo_engine_check.run import check as report_of
from manual import PAGE, page

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guide's plugin, word for word."""
    return guide.as_it_is(tmp_path_factory.mktemp("guide"))


def ids(path: Path, *options: object) -> list[str]:
    faults = json.loads(run(path, "--format", "json", *options)[1])["faults"]
    return list(dict.fromkeys(fault["id"] for fault in faults))


def test_two_runs_give_the_same(broken: Path) -> None:
    first, second = (report_of(broken, Options()) for _ in range(2))
    for form in FORMATS:
        assert write(first, form) == write(second, form)
    assert run(broken)[::2] == (1, "")


def test_text_says_what_where_why_how_and_again(broken: Path) -> None:
    lines = run(broken, "--select", "EX304")[1].splitlines()
    assert lines[:2] == [
        "EX304 The methods take the arguments that exo gives",
        "  exo_myengine/engine.py:27: sample() does not take what exo gives (node.py:128): "
        "got an unexpected keyword argument 'temp'",
    ]
    text = "\n".join(lines)
    assert "(node.py:128)" in text
    assert "a TypeError" in text
    assert f"alone: exo-engine check {broken} --select EX304" in text
    assert lines[-1] == "1 fault, 0 checks passed"


def test_json_has_every_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exo_engine_check.processes.ANSWER_SECONDS", 1.5)
    copy = plugin(tmp_path, "answers")
    content = json.loads(run(copy, "--format", "json")[1])
    assert content["faults"] == []
    assert "EX901" in content["left"]
    not_run = {name for name, state in content["states"].items() if state == "not run"}
    assert not_run == {"EX812", "EX826", "EX827"}  # it has no backend of the template's contract
    not_there = {name for name, state in content["states"].items() if state == "not there"}
    assert not_there == {n for n, check in all_checks().items() if check.host == "0.3"}
    assert content["states"].keys() | content["ignored"].keys() == all_checks().keys()
    assert content["states"]["EX801"] == "passed"
    assert content["states"]["EX906"] == "can't"
    assert "whole models" in content["why"]["EX906"]
    assert content["capabilities"]["split by layers"] == {"0.0": "no", "0.3": ""}


def test_github_annotations(broken: Path) -> None:
    lines = run(broken, "--static", "--format", "github")[1].splitlines()
    assert (
        "::error file=exo_myengine/engine.py,line=27,title=EX304 The methods take the arguments "
        "that exo gives::sample() does not take what exo gives (node.py:128): got an unexpected "
        "keyword argument 'temp'"
    ) in lines


def test_select_and_ignore_take_the_beginning_of_ids(broken: Path) -> None:
    assert ids(broken, "--select", "EX20,EX5") == [
        "EX201", "EX205", "EX203", "EX206", "EX502", "EX503",
    ]  # fmt: skip
    assert ids(broken, "--select", "EX20", "--ignore", "EX203") == ["EX201", "EX205", "EX206"]
    assert run(broken, "--select", "EX777")[::2] == (2, "exo-engine: no check begins with EX777\n")


def ignoring(folder: Path, table: str, line: str) -> Path:
    copy = plugin(folder)
    (copy / "exo_steps/detection.py").write_text("def detect_device():\n    return 1\n")
    config = copy / "pyproject.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(f"{text}\n[tool.{table}.ignore]\n{line}\n", encoding="utf-8")
    return copy


@pytest.mark.parametrize("table", ["exo-engine", "repo-review"])
def test_an_ignore_with_a_reason_is_shown_and_counts(tmp_path: Path, table: str) -> None:
    copy = ignoring(tmp_path, table, 'EX502 = "the host wants numbers"')
    assert ids(copy, "--select", "EX0,EX50") == []
    assert "EX502 ignored: the host wants numbers" in run(copy, "--select", "EX502")[1]


def test_an_ignore_that_is_no_longer_needed_is_a_fault(tmp_path: Path) -> None:
    copy = ignoring(tmp_path, "exo-engine", 'EX502 = "numbers"\nEX401 = "layers are odd"')
    [message] = faults(copy, "EX003", "EX401")["EX003"]
    assert "EX401 is ignored, and passes" in message


def test_nothing_run_is_no_success(tmp_path: Path) -> None:
    assert run(PLUGINS / "steps", "--static", "--select", "EX8")[0] == 2
    copy = plugin(tmp_path)
    config = copy / "pyproject.toml"
    config.write_text(
        config.read_text().replace('steps = "exo_steps.engine:', 'steps = "exo_gone:')
    )
    code, out, _ = run(copy)
    assert code == 1
    assert "not run: no entry point of exo.inference_engines leads to anything" in out
    assert run(copy, "--select", "EX80")[0] == 2


def broken_steps(folder: Path) -> Path:
    """Its backend raises below the template's kit, and one error breaks many checks."""
    copy = plugin(folder)
    engine = copy / "exo_steps" / "engine.py"
    text = engine.read_text(encoding="utf-8")
    (copy / "exo_steps" / "kit").mkdir()
    (copy / "exo_steps" / "kit" / "__init__.py").write_text("")
    (copy / "exo_steps" / "kit" / "steps.py").write_text(
        "def call(step, *given):\n    return step(*given)\n"
    )
    text = text.replace("from .metrics", "from .kit.steps import call\nfrom .metrics")
    text = text.replace(
        "output = self.step(request_id, shard, input_data)",
        "output = call(self.step, request_id, shard, input_data)",
    )
    engine.write_text(
        text.replace(
            "        inputs = self", "        raise KeyError('boom')\n        inputs = self"
        )
    )
    return copy


def test_one_cause_is_one_fault_at_the_authors_line(tmp_path: Path) -> None:
    content = json.loads(run(broken_steps(tmp_path), "--format", "json")[1])
    [fault] = [fault for fault in content["faults"] if fault["id"] < "EX85"]
    assert fault["id"] == "EX801"
    assert fault["path"] == "exo_steps/engine.py"
    assert content["why"]["EX805"] == fault["message"]


def test_a_traceback_is_shown_on_demand(tmp_path: Path) -> None:
    copy = broken_steps(tmp_path)
    assert "KeyError: 'boom'\n" not in run(copy, "--select", "EX801")[1]
    out = run(copy, "--select", "EX801", "--traceback")[1]
    assert "  | KeyError: 'boom'\n" in out
    assert "in call" in out


def test_what_stops_a_user_first_comes_first(tmp_path: Path) -> None:
    copy = guide.as_it_is(tmp_path)
    config = copy / "pyproject.toml"
    text = config.read_text(encoding="utf-8").replace("models:MY_MODELS", "models:MODELS")
    config.write_text(text, encoding="utf-8")
    listed = ids(copy)
    order = ["EX107", "EX201", "EX205", "EX301", "EX602", "EX203", "EX206", "EX502"]
    assert [name for name in listed if name in order] == order


def test_a_renamed_class_is_one_fault(tmp_path: Path) -> None:
    """And no row of the table is lost by that: nothing was run."""
    copy = plugin(tmp_path)
    (copy / "CAPABILITIES.md").write_text("| answers | yes | yes | |\n| metrics | yes | | |\n")
    engine = copy / "exo_steps" / "engine.py"
    engine.write_text(engine.read_text().replace("class StepsInferenceEngine", "class StepsEngine"))
    assert ids(copy, "--report", copy / "CAPABILITIES.md") == ["EX107"]


@pytest.mark.parametrize(
    ("where", "text", "name"),
    [
        ("        self.shard_downloader = shard_downloader\n", "        print('made')\n", "EX952"),
        ("        TOKENS.labels", "        print('a step')\n", "EX952"),
    ],
)
def test_a_printed_command_finds_what_the_run_found(
    tmp_path: Path, where: str, text: str, name: str
) -> None:
    copy = plugin(tmp_path)
    engine = copy / "exo_steps" / "engine.py"
    engine.write_text(engine.read_text().replace(where, text + where))
    out = run(copy, "--select", "EX6,EX80,EX95")[1]
    [line] = [line for line in out.splitlines() if line.startswith("    alone: ")]
    arguments = shlex.split(line.partition(": ")[2])[2:]
    assert name in run(*arguments)[1]


def test_the_version_is_shown() -> None:
    command = [sys.executable, "-m", "exo_engine_check.cli", "--version"]
    out = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    assert re.fullmatch(r"exo-engine \d\S*\n|exo-engine of a folder, not installed\n", out)


def test_every_check_is_its_own_manual() -> None:
    for name, check in all_checks().items():
        words = ("exo", "requires", "copier")
        assert check.title()[0].isupper() or check.title().startswith(words), name
        assert len(check.manual()) > 80, name


def test_the_page_of_checks_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python tests/check/manual.py"


def test_faults_of_exo_that_a_plugin_leaves_count_with_strict_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exo_engine_check.processes.ANSWER_SECONDS", 1.5)
    code, out, _ = run(PLUGINS / "steps", "--select", "EX901,EX903")
    assert code == 0
    assert "  EX901 The engine stays when the cluster changes\n" in out
    assert out.endswith("no fault, 0 checks passed, 2 left as exo has it\n")
    code, out, _ = run(PLUGINS / "steps", "--select", "EX901,EX903", "--strict")
    assert code == 1
    assert "exo has put TinygradDynamicShardInferenceEngine in the engine's place" in out
    assert out.endswith("2 faults, 0 checks passed\n") or out.endswith(
        "3 faults, 0 checks passed\n"
    )


def test_the_hook_runs_no_code() -> None:
    [hook] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert hook["entry"] == "exo-engine check --static"


def test_it_is_quick(tmp_path: Path) -> None:
    """No import of what a static check doesn't need; the figures are those of benchmarks/."""
    code = (
        "import sys, exo_engine_check.cli as c\n"
        "try: c.app(['check', '--static', sys.argv[1]])\nexcept SystemExit: pass\n"
        "print(*sys.modules)"
    )
    command = [sys.executable, "-c", code, PLUGINS / "steps"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    loaded = set(done.stdout.split())
    assert "exo_engine_check.checks" in loaded
    assert not loaded & {"rich", "numpy", "typer", "copier"}


def test_the_distribution_has_the_checker_and_the_stand_in(tmp_path: Path) -> None:
    from test_rendered_plugin import build_wheel

    wheel = build_wheel(ROOT, tmp_path)
    subprocess.run(["unzip", "-q", wheel, "-d", tmp_path / "x"], check=True)
    folder = tmp_path / "x" / "exo_engine_check"
    for name in (
        "standin/exo/models.py",
        "standin_node/exo/orchestration/node.py",
        "standin_0_3/exo/main.py",
        "inside/__main__.py",
        "inside/exo_order.py",
        "inside/checks/nodes.py",
    ):
        assert (folder / name).is_file(), name
