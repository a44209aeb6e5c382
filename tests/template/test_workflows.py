"""The workflows, a plugin's and this repository's: linted, and run without GitHub where it goes."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import copier
import pytest
import yaml
from conftest import REPOSITORY, variants
from test_rendered_plugin import make_venv, run, uv

# A plugin's workflows run on Linux; the bash of Windows may be another system's.
BASH = shutil.which("bash") if os.name == "posix" else None
CHECKER = re.compile(
    r"""(['"])exo-engine-template @ git\+https://github\.com/ada/exo-engine-template@[0-9a-f]{40}\1"""
)
# These take long, and tests/template/test_rendered_plugin.py runs them on every variant.
ELSEWHERE = {"mypy": '"-m", "mypy", "--strict"'}
# Of the plugin's own tests that file runs all; here it is enough that the command works.
PYTEST = "pytest tests/test_discovery.py"
# What the weekly job does that needs root, GitHub or a real exo.
NOT_HERE = [
    "sudo apt-get update && sudo apt-get install --yes clang",
    'pip install "exo @ git+https://github.com/jfreed-dev/exo-rkllama$EXO"',
    "python -c 'import exo.inference.plugin_discovery'",
    "pip install copier",
]


@pytest.fixture(params=["this repository", *variants()])
def project(request: pytest.FixtureRequest, plugin_of: Callable[[str], Path]) -> Path:
    """A folder with workflows."""
    return REPOSITORY if request.param == "this repository" else plugin_of(request.param)


def workflows(folder: Path) -> dict[str, dict]:
    """The parsed workflows by the names of their files."""
    paths = sorted((folder / ".github/workflows").glob("*.yml"))
    return {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths}


def jobs(folder: Path) -> dict[str, dict]:
    """Every job of every workflow, by `file/name`."""
    files = workflows(folder).items()
    return {f"{file}/{name}": job for file, flow in files for name, job in flow["jobs"].items()}


def commands(folder: Path, job: str) -> list[str]:
    """What a job runs, in its order."""
    return [step["run"] for step in jobs(folder)[job]["steps"] if "run" in step]


def tool(name: str) -> str:
    """A command of this environment, else of PATH."""
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    path = shutil.which(name, path=beside)
    if path is None:
        pytest.skip(f"{name} is not here")
    return path


def zizmor(folder: Path) -> subprocess.CompletedProcess[str]:
    """What zizmor says of a folder without asking GitHub."""
    options = ["--offline", "--no-progress", "--strict-collection", "--collect=all"]
    return subprocess.run(
        [tool("zizmor"), *options, "."],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )


def test_zizmor_finds_nothing(project: Path) -> None:
    done = zizmor(project)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("good", "bad", "audit"),
    [
        ("run: pytest", "run: echo ${{ github.head_ref }}", "template-injection"),
        ("permissions:\n      contents: read", "permissions: write-all", "excessive-permissions"),
        ("@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "@v7", "unpinned-uses"),
    ],
)
def test_zizmor_bites(rkllm_plugin: Path, tmp_path: Path, good: str, bad: str, audit: str) -> None:
    shutil.copytree(rkllm_plugin / ".github", tmp_path / ".github")
    path = tmp_path / ".github/workflows/ci.yml"
    text = path.read_text(encoding="utf-8")
    assert good in text
    path.write_text(text.replace(good, bad), encoding="utf-8")
    done = zizmor(tmp_path)
    assert done.returncode != 0
    assert audit in done.stdout


def test_actionlint_finds_nothing(project: Path) -> None:
    """On PyPI it is a script that loads a binary from GitHub, so it is not in the test extra."""
    files = [str(path) for path in (project / ".github/workflows").glob("*.yml")]
    run(tool("actionlint"), "-no-color", *files)


def test_every_action_is_pinned_by_commit_with_its_version(plugin_of: Callable) -> None:
    pins: dict[str, set[str]] = {}
    folders = [REPOSITORY, *(plugin_of(variant) for variant in variants())]
    for path in (path for folder in folders for path in folder.glob(".github/workflows/*.yml")):
        for used in re.findall(r"uses: (.*)", path.read_text(encoding="utf-8")):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), path
            action, _, pin = used.partition("@")
            pins.setdefault(action, set()).add(pin)
    assert {action for action, different in pins.items() if len(different) > 1} == set()
    assert len(pins) == 5


def test_every_hook_is_pinned_by_commit_with_its_version(plugin_of: Callable) -> None:
    text = (plugin_of("numpy") / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    pins = re.findall(r"rev: (.*)", text)
    assert len(pins) == len(yaml.safe_load(text)["repos"]) >= 3
    for pin in pins:
        assert re.fullmatch(r"[0-9a-f]{40}  # frozen: v\d+\.\d+\.\d+", pin)


def test_dependabot_looks_wherever_a_version_is_pinned(project: Path) -> None:
    """build.txt says that it brings new versions."""
    text = (project / ".github/dependabot.yml").read_text(encoding="utf-8")
    tools: dict[str, set[str]] = {}
    for update in yaml.safe_load(text)["updates"]:
        places = update.get("directories") or [update["directory"]]
        tools.setdefault(update["package-ecosystem"], set()).update(places)
    assert "/" in tools["github-actions"]
    pinned = {path.parent.relative_to(project).as_posix() for path in project.glob("**/build.txt")}
    assert {f"/{place}" for place in pinned} <= tools["pip"]


def test_a_job_may_only_read_and_only_publish_may_sign(project: Path) -> None:
    assert {file: flow["permissions"] for file, flow in workflows(project).items()} == {
        file: {} for file in workflows(project)
    }
    for name, job in jobs(project).items():
        publishes = name == "release.yml/publish"
        allowed = {"id-token": "write"} if publishes else {"contents": "read"}
        assert job["permissions"] == allowed, name
        assert job["timeout-minutes"] <= 30
        checkouts = [s for s in job["steps"] if "actions/checkout" in s.get("uses", "")]
        assert len(checkouts) == (0 if publishes else 1)
        assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def here(command: str, checker: Path) -> str:
    """A command of the workflows or the docs as it is run here: from caches, without GitHub."""
    command = CHECKER.sub(lambda _: shlex.quote(str(checker)), command)
    built = command.replace("--no-isolation", "--no-build-isolation")
    command = re.sub(r"\bpython -m build\b", f"{shlex.quote(uv())} build --quiet", built)
    command = re.sub(r"\bpip install\b", f"{shlex.quote(uv())} pip install --quiet", command)
    return PYTEST if command == "pytest" else command


def bash(venv: Path, command: str, folder: Path) -> str:
    """What a command prints that has to succeed in an environment, as a workflow runs it."""
    assert BASH
    script = f". {shlex.quote(str(venv / 'bin/activate'))}\n{command}"
    return run(BASH, "--noprofile", "--norc", "-eo", "pipefail", "-c", script, cwd=folder)


@pytest.mark.skipif(BASH is None, reason="bash is not here")
def test_the_commands_of_ci_and_release_work(
    plugin_of: Callable[[str], Path], checker: Path, tmp_path: Path
) -> None:
    plugin = shutil.copytree(plugin_of("numpy"), tmp_path / "exo-numpy")
    every = set(jobs(plugin))
    installed = (
        "ci.yml/test",
        "ci.yml/lint",
        "ci.yml/check",
        "release.yml/build",
        "release.yml/test",
    )
    others = {f"weekly.yml/{job}" for job in ("exo", "exo-0-3", "template")}
    others |= {"release.yml/publish"}
    assert every == {*installed} | others
    for job in installed:
        make_venv(tmp_path / job)
        for command in commands(plugin, job):
            if command not in ELSEWHERE:
                text = f"export GITHUB_REF_NAME=v0.1.0\n{here(command, checker)}"
                bash(tmp_path / job, text, plugin)
        if (
            job != "release.yml/build"
        ):  # it hands on what it built; others begin with a clean checkout
            shutil.rmtree(plugin / "dist", ignore_errors=True)


def test_every_variant_has_the_same_workflows(plugin_of: Callable[[str], Path]) -> None:
    [first, *rest] = [workflows(plugin_of(variant)) for variant in variants()]
    [*_, board] = first["ci.yml"]["jobs"]["test"]["steps"]
    assert " exo-numpy ops " in board["run"]
    first["ci.yml"]["jobs"]["test"]["steps"].remove(board)  # numpy's own
    assert all(other == first for other in rest)


@pytest.mark.skipif(BASH is None, reason="bash is not here")
@pytest.mark.parametrize(("committed", "code"), [(None, 0), ("right", 0), ("wrong", 1)])
def test_the_operations_board_is_compared_where_one_is_committed(
    plugin_of: Callable[[str], Path], tmp_path: Path, committed: str | None, code: int
) -> None:
    [*_, step] = commands(plugin_of("numpy"), "ci.yml/test")
    board, command = tmp_path / "OPERATIONS.md", tmp_path / "bin/exo-numpy"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\nprintf right > $3\n")
    command.chmod(0o755)
    if committed:
        board.write_text(committed)
    author = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    run("git", "init", "--quiet", cwd=tmp_path)
    run("git", "add", "--all", cwd=tmp_path)
    run("git", *author, "commit", "--quiet", "--message", "A board", cwd=tmp_path)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run([str(BASH), "-ec", step], cwd=tmp_path, env=os.environ | {"PATH": path})
    assert done.returncode == code


def test_what_is_not_run_here_is_run_there() -> None:
    source = (REPOSITORY / "tests/template/test_rendered_plugin.py").read_text(encoding="utf-8")
    for text in ELSEWHERE.values():
        assert text in source


@pytest.mark.skipif(BASH is None, reason="bash is not here")
def test_a_release_whose_tag_is_not_its_version_is_refused(
    rkllm_plugin: Path, tmp_path: Path
) -> None:
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/exo_rkllm-0.1.0.tar.gz").touch()
    for folder, advice in ((rkllm_plugin, "into pyproject.toml"), (REPOSITORY, "Spell the tag")):
        build, guard, *_ = commands(folder, "release.yml/build")[1:]
        assert build == "python -m build --no-isolation"
        assert run(str(BASH), "-ec", f"GITHUB_REF_NAME=v0.1.0\n{guard}", cwd=tmp_path)
        for tag in ("v0.2.0", "v0.1", "v1.0", "v"):
            with pytest.raises(AssertionError, match=f"::error::Tag and version differ.*{advice}"):
                run(str(BASH), "-ec", f"GITHUB_REF_NAME={tag}\n{guard}", cwd=tmp_path)


def test_what_is_published_was_tested_by_a_job_that_may_not_publish(project: Path) -> None:
    flow = jobs(project)
    build, test, publish = (flow[f"release.yml/{name}"] for name in ("build", "test", "publish"))
    assert commands(project, "release.yml/build")[0] == "pip install -r .github/build.txt"
    assert not any("pytest" in c or "[test]" in c for c in commands(project, "release.yml/build"))
    assert commands(project, "release.yml/test")[0].startswith(
        'pip install "$(ls dist/*.whl)[test]"'
    )
    assert commands(project, "release.yml/test")[-1].startswith("pytest")
    assert commands(project, "release.yml/publish") == []
    assert (test["needs"], publish["needs"]) == ("build", ["build", "test"])
    assert "environment" not in build | test
    for job in (test, publish):
        [fetch] = [s for s in job["steps"] if "download-artifact" in s.get("uses", "")]
        assert fetch["with"]["artifact-ids"] == "${{ needs.build.outputs.artifact }}"


def test_what_builds_a_release_is_pinned_by_hashes(project: Path) -> None:
    text = (project / ".github/build.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if re.match(r"\w", line)]
    assert all(re.fullmatch(r"[\w-]+==[\d.]+( ; [^\\]+)? \\", line) for line in lines)
    assert text.count("--hash=sha256:") >= len(lines)
    names = {line.partition("=")[0] for line in lines}
    metadata = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    needs = {re.split(r"\W", r.replace("-", "_"))[0] for r in metadata["build-system"]["requires"]}
    assert {"build", *(name.replace("_", "-") for name in needs)} <= names


def test_exo_is_named_by_the_commit_that_was_tested(plugin_of: Callable[[str], Path]) -> None:
    plugin = plugin_of("numpy")
    matrix = jobs(plugin)["weekly.yml/exo"]["strategy"]["matrix"]["exo"]
    doctor = (plugin / "exo_numpy/kit/command/doctor.py").read_text(encoding="utf-8")
    [tested] = re.findall(r'^EXO_COMMIT = "([0-9a-f]{40})"$', doctor, re.M)
    assert matrix == [f"@{tested}", ""]  # and the newest
    checker = (REPOSITORY / "hooks/exo_engine_check/host.py").read_text(encoding="utf-8")
    pages = (plugin / "README.md", REPOSITORY / "docs/exo.md")
    for text in (checker, *(page.read_text(encoding="utf-8") for page in pages)):
        assert tested in text


def test_the_weekly_commands_are_those_of_ci_or_need_what_is_not_here(rkllm_plugin: Path) -> None:
    weekly = commands(rkllm_plugin, "weekly.yml/exo")
    weekly += commands(rkllm_plugin, "weekly.yml/template")
    known = commands(rkllm_plugin, "ci.yml/test") + NOT_HERE
    assert [c for c in weekly if c not in known and not c.startswith("copier check-update")] == []
    assert set(NOT_HERE) <= set(weekly)


def test_the_weekly_job_knows_the_stand_in_from_an_exo(rkllm_plugin: Path, tmp_path: Path) -> None:
    [asks] = [c for c in NOT_HERE if c.startswith("python -c")]
    code = shlex.split(asks)[2]
    python = make_venv(tmp_path / "venv")
    with pytest.raises(AssertionError, match="No module named 'exo'"):
        run(python, "-c", code, cwd=rkllm_plugin)


@pytest.mark.skipif(BASH is None, reason="bash is not here")
def test_the_weekly_job_is_red_when_the_template_has_a_newer_version(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "gitconfig"
    config.write_text("[user]\nname = Ada\nemail = ada@example.com\n[core]\nautocrlf = false\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    source = shutil.copytree(template, tmp_path / "template")
    git = ["git", "-C", source]
    run("git", "init", "--quiet", source)
    run(*git, "add", "--all")
    for tag in ("v0.1.0", "v0.2.0"):
        run(*git, "commit", "--quiet", "--allow-empty", "--message", tag)
        run(*git, "tag", tag)
    monkeypatch.setenv("PATH", str(Path(tool("copier")).parent), prepend=os.pathsep)
    outputs = {}
    for tag in ("v0.1.0", "v0.2.0"):
        plugin = tmp_path / tag / "exo-x"
        copier.run_copy(str(source), plugin, defaults=True, quiet=True, vcs_ref=tag)
        run("git", "init", "--quiet", plugin)
        asks = [c for c in commands(plugin, "weekly.yml/template") if c.startswith("copier ")]
        command = [BASH, "--noprofile", "--norc", "-eo", "pipefail", "-c", "\n".join(asks)]
        done = subprocess.run(command, cwd=plugin, capture_output=True, text=True, timeout=60)
        outputs[tag] = (done.returncode, done.stdout)
    assert outputs["v0.2.0"] == (0, "Project is up-to-date!\n")
    assert outputs["v0.1.0"][0] == 1
    assert re.search(r"0\.1\.0.* 0\.2\.0\.\n::error::.*copier update", outputs["v0.1.0"][1], re.S)


def test_ci_of_this_repository_runs_what_ci_run_runs() -> None:
    script = (REPOSITORY / ".ci/run").read_text(encoding="utf-8")
    lines = {line.strip() for line in script.splitlines()}
    installs = ("pip install ", "npm install ")
    steps = [c for c in commands(REPOSITORY, "ci.yml/test") if not c.startswith(installs)]
    assert len(steps) == 4
    assert set(steps) <= lines


def test_ci_of_this_repository_covers_three_systems_and_every_python() -> None:
    matrix = jobs(REPOSITORY)["ci.yml/test"]["strategy"]["matrix"]
    systems = {*matrix["os"], *(one["os"] for one in matrix["include"])}
    assert {name.partition("-")[0] for name in systems} == {"ubuntu", "macos", "windows"}
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
