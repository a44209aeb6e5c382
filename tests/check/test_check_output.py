"""The formats, the exit codes, choosing and ignoring checks."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import guide_plugin as guide
import pytest
import yaml
from checking import ids, run
from exo_engine_check.checks import FAMILIES, repo_review_checks
from exo_engine_check.findings import Finding, Place, parse, reports
from exo_engine_check.table import with_table
from test_rendered_plugin import build_wheel

README = Path(__file__).parents[2] / "README.md"
MULTITOOL = shutil.which("sarif-multitool")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guide's plugin, word for word."""
    return guide.as_it_is(tmp_path_factory.mktemp("guide"))


@pytest.mark.parametrize("format_", ["rich", "json", "sarif", "github"])
def test_exit_codes_and_output_are_the_same_twice(
    broken: Path, tmp_path: Path, format_: str
) -> None:
    clean = guide.mended(tmp_path)
    assert run(clean, "--format", format_)[0] == 0
    first, second = (run(broken, "--format", format_) for _ in range(2))
    assert first == second
    assert first[0] == 1
    assert first[2] == ""


def test_the_order_is_that_of_ids_then_places(broken: Path) -> None:
    faults = json.loads(run(broken, "--format", "json")[1])["faults"]
    keys = [(f["id"], f["path"] or "", f["line"] or 0, f["message"]) for f in faults]
    assert keys == sorted(keys)
    assert len(keys) == len(set(keys)) == 15


def test_text_says_what_where_why_and_how(broken: Path) -> None:
    _, out, _ = run(broken, "--select", "EX305")
    assert out.splitlines()[:2] == [
        "EX305 sample() takes a temperature",
        "  exo_myengine/engine.py:27: sample() has no parameter temp",
    ]
    assert "(node.py:128)" in out
    assert "Write" in out
    assert "https://github.com/org/exo-engine-template#EX305" in out
    assert out.splitlines()[-1] == "1 fault, 0 checks passed"


def test_a_terminal_gets_colour() -> None:
    from exo_engine_check.formats import show
    from exo_engine_check.run import Fault, Report
    from rich.console import Console

    fault = Fault("EX101", Finding(Place("[x].toml", 3), "[bold]y"), "Title", "Manual", "https://u")
    report = Report([fault], {"EX503": "[why]"}, 3, ["note"])
    with pytest.MonkeyPatch.context() as patch, Path(os.devnull).open("w") as null:
        console = Console(file=null, force_terminal=True, record=True, width=40)
        patch.setattr("rich.console.Console", lambda **_: console)
        show(report)
    coloured = console.export_text(styles=True, clear=False)
    assert "\x1b[1;31mEX101" in coloured
    plain = console.export_text()
    for text in ("[x].toml:3: [bold]y", "Manual", "EX503 ignored: [why]", "note: note", "1 fault"):
        assert text in plain


def test_json_has_everything(broken: Path) -> None:
    content = json.loads(run(broken, "--format", "json", "--select", "EX305,EX206")[1])
    [typed, sample] = content["faults"]
    assert typed["path"] == "exo_myengine"
    assert typed["line"] is None
    assert sample["id"] == "EX305"
    assert sample["title"] == "sample() takes a temperature"
    assert (sample["path"], sample["line"]) == ("exo_myengine/engine.py", 27)
    assert "TypeError" in sample["help"]
    assert sample["url"].endswith("#EX305")


def test_github_annotations(broken: Path) -> None:
    lines = run(broken, "--format", "github")[1].splitlines()
    annotation = re.compile(r"::error (file=[^,:]+(,line=\d+)?,)?title=EX\d{3} [^:,]+::.+")
    assert all(annotation.fullmatch(line) for line in lines[:-1])
    assert (
        "::error file=exo_myengine/engine.py,line=27,title=EX305 sample() takes a temperature"
        "::sample() has no parameter temp"
    ) in lines
    assert len(lines) == 16


def test_github_escapes_what_it_must() -> None:
    from exo_engine_check.formats import as_github
    from exo_engine_check.run import Fault, Report

    fault = Fault("EX101", Finding(Place("a,b:c%.py", 3), "100%\nmore: a, b"), "T: a, b", "", "")
    assert as_github(Report([fault])).splitlines()[0] == (
        "::error file=a%2Cb%3Ac%25.py,line=3,title=EX101 T%3A a%2C b::100%25%0Amore: a, b"
    )


def sarif(path: Path) -> Any:
    return json.loads(run(path, "--format", "sarif")[1])


def test_sarif_names_rules_and_places(broken: Path) -> None:
    content = sarif(broken)
    assert content["version"] == "2.1.0"
    [found] = content["runs"]
    rules = found["tool"]["driver"]["rules"]
    for result in found["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    places = {
        r["ruleId"]: r["locations"][0]["physicalLocation"]
        for r in found["results"]
        if "locations" in r
    }
    assert places["EX305"] == {
        "artifactLocation": {"uri": "exo_myengine/engine.py"},
        "region": {"startLine": 27},
    }
    assert places["EX206"] == {"artifactLocation": {"uri": "exo_myengine"}}


@pytest.mark.skipif(
    not MULTITOOL, reason="sarif-multitool is not on PATH: npm install @microsoft/sarif-multitool"
)
def test_sarif_keeps_to_its_schema(broken: Path, tmp_path: Path) -> None:
    def problems(name: str, content: dict[str, Any]) -> str:
        file = tmp_path / f"{name}.sarif"
        file.write_text(json.dumps(content), encoding="utf-8")
        done = subprocess.run(
            [str(MULTITOOL), "validate", str(file)],
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            env=os.environ | {"DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1"},
        )
        assert "1 files scanned" in done.stdout, done.stdout + done.stderr
        return "".join(line for line in done.stdout.splitlines() if ": error " in line)

    assert problems("clean", sarif(guide.mended(tmp_path))) == ""
    wrong = sarif(broken)
    assert problems("broken", wrong) == ""
    wrong["runs"][0]["results"][0]["line"] = 3
    assert "does not define a property 'line'" in problems("wrong", wrong)


def test_paths_are_those_of_the_working_folder(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def places(path: str) -> set[str]:
        content = json.loads(run(path, "--select", "EX2", "--format", "json")[1])
        return {fault["path"] for fault in content["faults"] if fault["path"]}

    monkeypatch.chdir(broken)
    inside = places(".")
    assert "pyproject.toml" in inside
    monkeypatch.chdir(broken.parent)
    assert places(broken.name) == {f"{broken.name}/{path}" for path in inside}
    monkeypatch.chdir(Path(broken.anchor))
    assert places(str(broken)) == {
        (broken.relative_to(broken.anchor) / path).as_posix() for path in inside
    }


def test_select_and_ignore_take_the_beginning_of_ids(broken: Path) -> None:
    def found(*options: str) -> set[str]:
        content = json.loads(run(broken, "--format", "json", *options)[1])
        return {fault["id"] for fault in content["faults"]}

    assert found("--select", "EX2") == {"EX201", "EX203", "EX204", "EX205", "EX206"}
    assert found("--select", "EX201,EX5") == {"EX201", "EX502", "EX503"}
    assert found("--select", "EX5", "--select", "EX201") == {"EX201", "EX502", "EX503"}
    assert found("--select", "EX2", "--ignore", "EX20", "--ignore", "EX3") == set()
    assert run(broken, "--select", "EX305", "--ignore", "EX305")[0] == 0


@pytest.mark.parametrize("option", ["--select", "--ignore"])
def test_an_id_that_is_none_is_refused(broken: Path, option: str) -> None:
    code, out, err = run(broken, option, "EX305,XY1")
    assert (code, out) == (2, "")
    assert err == "exo-engine: no check begins with XY1\n"


BARE = guide.GOOD_CONFIG.replace('license = "MIT"\n', "")


@pytest.mark.parametrize("table", ["exo-engine", "repo-review"])
def test_an_ignore_with_a_reason_is_shown_and_counts(tmp_path: Path, table: str) -> None:
    ignore = f'\n[tool.{table}.ignore]\nEX204 = "not published yet"\n'
    plugin = guide.mended(tmp_path, config=BARE + ignore)
    code, out, _ = run(plugin)
    assert code == 0
    assert "EX204 ignored: not published yet\n" in out
    content = json.loads(run(plugin, "--format", "json")[1])
    assert content["ignored"] == {"EX204": "not published yet"}


@pytest.mark.parametrize("table", ["exo-engine", "repo-review"])
def test_an_ignore_without_a_reason_is_a_fault(tmp_path: Path, table: str) -> None:
    ignore = f'\n[tool.{table}.ignore]\nEX204 = ""\n'
    plugin = guide.mended(tmp_path, config=BARE + ignore)
    assert ids(plugin) == ["EX003"]


def test_other_peoples_ignores_are_theirs(tmp_path: Path) -> None:
    others = '\n[tool.repo-review]\nselect = ["PY", "PP"]\nignore = ["PY004", "EX"]\n'
    plugin = guide.mended(tmp_path, config=BARE + others)
    assert ids(plugin) == ["EX204"]


def test_repo_reviews_select_is_kept(tmp_path: Path) -> None:
    config = BARE + '\n[tool.repo-review]\nselect = ["PY", "EX3"]\n'
    assert ids(guide.mended(tmp_path, config=config)) == []


def review(path: Path) -> dict[str, Any]:
    """What plain repo-review says of these checks."""
    command = [sys.executable, "-m", "repo_review", "--format", "json", str(path)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60)
    checks = json.loads(done.stdout)["checks"]
    return {name: found for name, found in checks.items() if name.startswith("EX")}


def test_plain_repo_review_shows_the_checks(broken: Path, tmp_path: Path) -> None:
    found = review(broken)
    assert {name for name, c in found.items() if c["result"] is False} == set(ids(broken))
    assert "exo_myengine/engine.py:27" in found["EX305"]["err_msg"]
    assert found["EX901"]["result"] is None
    clean = review(guide.mended(tmp_path))
    assert clean.keys() == repo_review_checks().keys()
    assert {name for name, c in clean.items() if c["result"] is False} == set()


def test_plain_repo_review_says_nothing_of_other_projects(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\n', encoding="utf-8")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "__init__.py").write_text("import json\n", encoding="utf-8")
    assert review(tmp_path) == {}


def test_the_readmes_table_is_that_of_the_classes() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_table(text) == text


def test_every_check_is_its_own_manual() -> None:
    places = re.compile(r"\((?:[^()]*\s)?[a-z_/]+\.py:\d+|PEP \d+|its LICENSE|of exo\)")
    for name, check in repo_review_checks().items():
        title, manual = check.__doc__ or "", check.check.__doc__ or ""
        assert title, name
        assert not title.endswith("."), name
        assert places.search(manual) or name == "EX003", f"{name}: where does exo do that?"
        assert check.family in FAMILIES
        assert "{" not in title, name  # repo-review would fill it in
        assert "\n" not in title, name


def test_a_finding_survives_its_text() -> None:
    found = [
        Finding(Place("a b/c.py", 3), "m: `x`"),
        Finding(Place("d"), "n"),
        Finding(Place(), "o"),
    ]
    text = "\n".join(map(str, found)) + "\n\nWhy: `a:1`: b\n"
    assert parse(text) == (found, "Why: `a:1`: b")


def test_a_command_needs_a_name() -> None:
    from exo_engine_check.cli import app
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, [])
    assert "check" in done.output
    assert done.exit_code == 2


def test_the_readme_shows_what_is_printed(rkllm_plugin: Path) -> None:
    section = README.read_text(encoding="utf-8").split("\n## Checks\n", 1)[1]
    console = section.split("```console\n", 1)[1].split("```", 1)[0]
    static, loads = re.split(r"^\$ exo-engine check .*\n", console, flags=re.M)[1:]
    assert run(rkllm_plugin) == (0, static, "")
    assert run(rkllm_plugin, "--import") == (0, loads, "")


def test_the_hook_runs_the_command() -> None:
    [hook] = yaml.safe_load((README.parent / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    text = (README.parent / "template" / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    used = {hook["id"] for repo in yaml.safe_load(text)["repos"] for hook in repo["hooks"]}
    assert hook["id"] in used
    assert hook["id"] in README.read_text(encoding="utf-8")
    script, command = hook["entry"].split()
    scripts = tomllib.loads((README.parent / "pyproject.toml").read_text("utf-8"))["project"]
    assert scripts["scripts"][script] == "exo_engine_check.cli:app"
    assert command == "check"


def test_the_distribution_has_the_checker_and_the_stand_in(tmp_path: Path) -> None:
    source = tmp_path / "source"
    names = ["pyproject.toml", "README.md", "LICENSE", "hooks", "template"]
    for name in names:
        path, target = README.parent / name, source / name
        target.parent.mkdir(exist_ok=True)
        (shutil.copytree if path.is_dir() else shutil.copy)(path, target)
    compiled = source / "template" / "tests" / "standin" / "exo" / "__pycache__"
    compiled.mkdir(exist_ok=True)
    (compiled / "models.cpython-311.pyc").touch()
    wheel = build_wheel(source, tmp_path / "dist")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
        inside = {name.partition("/")[0] for name in archive.namelist()}
    assert inside == {"exo_engine_check", "exo_engine_template-0.0.0.dist-info"}  # no git, no tag
    code = "from exo_engine_check.importing import stand_in; print(stand_in())"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "installed",
        capture_output=True,
        encoding="utf-8",
    )
    folder = Path(shown.stdout.strip())
    assert folder == tmp_path / "installed" / "exo_engine_check" / "standin", shown.stderr
    assert (folder / "exo" / "inference" / "plugin_discovery.py").is_file()
    assert not list(folder.rglob("__pycache__"))


def test_a_checks_text_is_sorted_and_says_nothing_twice() -> None:
    @reports
    def check() -> Iterator[Finding]:
        """Why."""
        for line in (3, 1, 3, 2):
            yield Finding(Place("a", line), "m")

    assert check.__func__() == "- `a:1`: m\n- `a:2`: m\n- `a:3`: m\n\nWhy."
