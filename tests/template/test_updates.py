"""`copier update`: nothing of an author's is lost, and the rest is as in a fresh render.

Where a file is dropped, or an update ends half-way, git has what was there: that is no loss here.
What git ignores it has not.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import history as versions
import pytest
import yaml
from conftest import REPOSITORY, variants
from history import (
    ANSWERS,
    BROKEN,
    FEWER_CHOICES,
    NEXT,
    NO_PERCENT,
    OLDEST,
    STRICTER,
    History,
    answers_of,
    author_files,
    author_patterns,
    commit,
    copy_over,
    files_of,
    git,
    recopy,
    top_of,
    update,
    update_from_elsewhere,
)
from jinja2 import FileSystemLoader
from jinja2.sandbox import SandboxedEnvironment
from jinja2_ansible_filters import AnsibleCoreFiltersExtension
from test_release import tracked
from test_rendered_plugin import make_venv, run, uv

MINE = "# Ada wrote this.\n"
STORED = ".copier-answers.yml"
TAKE_BACK = "git restore --source=HEAD --staged --worktree . && git clean -d -f ."
PINNED = "docs/checking.md"  # a plugin itself pins a commit
NEITHER = {"user_email": "", "repository_url": ""}
CHANGELOG = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """git and copier without the settings of the user and of the caller."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GIT_")]:
            patch.delenv(name)
        for name, value in versions.hermetic(tmp_path_factory.mktemp("settings")).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def made_up(alone: None, template: Path, tmp_path_factory: pytest.TempPathFactory) -> History:
    """Versions made from the working tree, which are there from the first day."""
    return versions.synthetic(template, tmp_path_factory.mktemp("made-up") / "template")


@pytest.fixture(scope="module")
def own(alone: None, template: Path, tmp_path_factory: pytest.TempPathFactory) -> History | None:
    """This repository's tags, where it has any here."""
    return versions.own(template, tmp_path_factory.mktemp("own") / "template")


@pytest.fixture(params=["made up", "own"])
def history(request: pytest.FixtureRequest, made_up: History, own: History | None) -> History:
    """The versions made up, and this repository's own."""
    if request.param == "made up":
        return made_up
    return own or pytest.skip("this repository has no tag v* here")


@pytest.mark.parametrize(("which", "variant"), [("previous", "rkllm"), ("oldest", "numpy")])
def test_an_update_gives_what_a_fresh_render_gives(
    history: History, made_up: History, tmp_path: Path, which: str, variant: str
) -> None:
    answers = ANSWERS | {"variant": variant} | (NEITHER if variant == "rkllm" else {})
    plugin = versions.make_plugin(history, getattr(history, which), tmp_path / "exo-ada", answers)
    before, stored = files_of(plugin), answers_of(plugin)
    update(plugin)
    after = files_of(plugin)
    fresh = files_of(versions.render_version(history, NEXT, tmp_path / "fresh/exo-ada", answers))
    yours = {path: before[path] for path in author_files() if path in before}
    assert after == {path: fresh[path] for path in fresh.keys() - set(author_files())} | yours
    assert stored.items() <= answers_of(plugin).items()
    # A question that only another variant asks has no stored answer.
    assert answers_of(plugin).keys() == answers_of(tmp_path / "fresh/exo-ada").keys()
    # What goes, and what an update can't bring, as it is the author's.
    names = {path.replace("exo_ada/", "") for path in (before.keys() | fresh.keys()) - after.keys()}
    unnamed = {name for name in names if f"{name}`" not in CHANGELOG}
    assert unnamed == ({"NOTES.md"} if history is made_up else set())


Change = Callable[[Path], None]


def write(path: str, text: str = MINE) -> Change:
    """Write a file of Ada's."""

    def change(plugin: Path) -> None:
        (plugin / path).parent.mkdir(parents=True, exist_ok=True)
        (plugin / path).write_text(text, encoding="utf-8", newline="")

    return change


def add(path: str, text: str = MINE) -> Change:
    """Write below what a file has."""

    def change(plugin: Path) -> None:
        before = (plugin / path).read_text(encoding="utf-8")
        (plugin / path).write_text(before + text, encoding="utf-8", newline="")

    return change


def put(path: str, old: str, new: str) -> Change:
    """Write something else in place of what a file has."""

    def change(plugin: Path) -> None:
        text = versions.replace(old, new)((plugin / path).read_text(encoding="utf-8"))
        (plugin / path).write_text(text, encoding="utf-8", newline="")

    return change


def replace_all(old: str, new: str) -> Change:
    """Write other names into the answers file, wherever they stand."""

    def change(plugin: Path) -> None:
        text = (plugin / STORED).read_text(encoding="utf-8")
        lines = [
            line if line.startswith("_src") else line.replace(old, new)
            for line in text.splitlines()
        ]
        (plugin / STORED).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")

    return change


def delete(path: str) -> Change:
    """Take a file or a folder out of the plugin."""

    def change(plugin: Path) -> None:
        # Windows deletes no read-only file, and git's objects are.
        (plugin / path).rename(plugin.parent.parent / f"gone-{Path(path).name}")

    return change


def rename(path: str, to: str) -> Change:
    """Call a file otherwise."""

    def change(plugin: Path) -> None:
        (plugin / to).parent.mkdir(parents=True, exist_ok=True)
        (plugin / path).rename(plugin / to)

    return change


def link(path: str, to: str) -> Change:
    """Make a link."""
    return lambda plugin: (plugin / path).symlink_to(to)


def several(*changes: Change) -> Change:
    """One change after the other."""

    def change(plugin: Path) -> None:
        for one in changes:
            one(plugin)

    return change


def windows_lines(path: str) -> Change:
    """End a file's lines as Windows does."""

    def change(plugin: Path) -> None:
        text = (plugin / path).read_bytes().replace(b"\n", b"\r\n")
        (plugin / path).write_bytes(text)

    return change


def in_a_bigger_repository(plugin: Path) -> None:
    """Make the plugin a folder of another repository, beside a changed and a new file."""
    delete(".git")(plugin)
    git(plugin.parent, "init", "--quiet")
    (plugin.parent / "beside.txt").write_text(MINE, encoding="utf-8")
    commit(plugin.parent, "All")
    (plugin.parent / "beside.txt").write_text(MINE * 2, encoding="utf-8")
    (plugin.parent / "new.txt").write_text(MINE, encoding="utf-8")


def edit_own_files(plugin: Path) -> None:
    """Write something into every file of the author's."""
    several(*(write(path) for path in author_files()))(plugin)


def nothing(plugin: Path) -> None:
    """Leave all as it is."""


CARD = """
MODELS = cards(*MODELS.table, Model("mine", "Mine", "ada/mine", 2))
"""
BACKEND = '''

class Mine(Backend):
    """Ada's device."""

    def check(self) -> str:
        return "the Analytical Engine"
'''
JOB = """  board:
    runs-on: [self-hosted, board]
    steps:
      - run: exo-ada doctor
"""
DEPENDENCY = '    "packaging>=24.0",\n'
TEST_DEPENDENCY = '    "pytest-timeout>=2.3",\n'
GREETING = "Runs on the Analytical Engine.\n"


OWN = {
    "exo_ada/detection.py": 'def detect_device() -> str | None:\n    return "ada"\n',
    "exo_ada/gears.py": "TEETH = 40\n",
    "tests/test_models.py": """from exo_ada.backend import Mine
from exo_ada.detection import detect_device
from exo_ada.gears import TEETH
from exo_ada.models import MODELS


def test_mine():
    assert Mine().check() == "the Analytical Engine"
    assert (detect_device(), TEETH, MODELS.table[-1].layers) == ("ada", 40, 2)
""",
}
as_an_author_would = several(
    add("exo_ada/backend.py", BACKEND),
    add("exo_ada/models.py", CARD),
    *(write(path, text) for path, text in OWN.items()),
    delete("tests/test_detection.py"),
    put("pyproject.toml", "\ndependencies = [\n", "\ndependencies = [\n" + DEPENDENCY),
    put("pyproject.toml", "\ntest = [\n", "\ntest = [\n" + TEST_DEPENDENCY),
    put("README.md", "# exo-ada\n", f"# exo-ada\n\n{GREETING}"),
    add(".github/workflows/ci.yml", JOB),
)


def test_an_author_loses_nothing_and_the_tests_are_green(
    made_up: History, own: History | None, tmp_path: Path
) -> None:
    history = own or made_up
    plugin = versions.make_plugin(history, history.oldest, tmp_path / "ada/exo-ada", ANSWERS)
    as_an_author_would(plugin)
    commit(plugin, "Ada's")
    before = files_of(plugin)
    update(plugin)
    after = files_of(plugin)
    for path in {*OWN, *author_files()} - {"tests/test_detection.py"}:
        assert after[path] == before[path], path
    assert "tests/test_detection.py" not in after
    assert git(plugin, "diff", "--name-only", "--diff-filter=U") == ""
    for line in (DEPENDENCY, TEST_DEPENDENCY):
        assert line.encode() in after["pyproject.toml"]
    assert GREETING.encode() in after["README.md"]
    jobs = yaml.safe_load(after[".github/workflows/ci.yml"])["jobs"]
    assert jobs["board"]["steps"] == [{"run": "exo-ada doctor"}]
    python = make_venv(tmp_path / "venv")
    run(uv(), "pip", "install", "--quiet", "--python", python, f"{plugin}[test]")
    output = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=plugin)
    assert " passed" in output


def test_an_update_marks_no_other_file_where_git_writes_lines_as_windows(
    made_up: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("COUNT", "1"), ("KEY_0", "core.autocrlf"), ("VALUE_0", "true")):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    plugin = versions.make_plugin(made_up, made_up.previous, tmp_path / "exo-ada", ANSWERS)
    git(tmp_path, "clone", "--quiet", str(plugin), "clone")
    update(tmp_path / "clone")
    marked = git(tmp_path / "clone", "status", "--porcelain").splitlines()
    assert sorted(line[3:] for line in marked) == [
        STORED,
        "NOTES.md",
        "exo_ada/kit/engine/sampler.py",
    ]


def test_contributing_has_the_files_that_an_update_leaves_alone(
    plugin_of: Callable[[str], Path],
) -> None:
    for variant in variants():
        text = (plugin_of(variant) / "CONTRIBUTING.md").read_text(encoding="utf-8")
        table = re.findall(r"^\| `(.+)` \| \*\*yours\*\* \| .+ \|$", text, re.MULTILINE)
        files = [file for one in author_patterns() for file in plugin_of(variant).glob(one)]
        assert table == [file.relative_to(plugin_of(variant)).as_posix() for file in files]
        assert f"$ {TAKE_BACK}\n" in text


def test_every_version_is_in_the_changelog() -> None:
    tags = versions.tags_of(REPOSITORY)
    entries = re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]
    newest, *_ = names = [f"v{entry.split()[0]}" for entry in entries]
    assert {*tags} <= {*names}
    for version, entry in zip(names, entries, strict=True):
        assert re.search(r"^\*\*To do:\*\* \w", entry, re.MULTILINE), entry
        assert version not in tags or "not released" not in entry, f"{version} is released"
    pins = r"exo-engine-template(?:@|\n *rev: )(v\d[\d.]*)"
    docs = {name: REPOSITORY / name for name in tracked() if name.endswith((".md", ".md.jinja"))}
    pinned = {name: {*re.findall(pins, doc.read_text("utf-8"))} for name, doc in docs.items()}
    assert pinned[PINNED] == {newest}
    for name, pin in pinned.items():
        assert pin <= {newest}, f"{name} wants another version"


@pytest.fixture(scope="module")
def old_plugin(alone: None, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plugin from the oldest version made up, committed; tests copy it. Few files are quick."""
    base = tmp_path_factory.mktemp("old")
    few = shutil.ignore_patterns("exo_engine_check", "standin", ".github", "test_[!b]*.py*")
    shutil.copytree(template, base / "few", ignore=few)
    order = Path("hooks/exo_engine_check/inside/exo_order.py")  # the plugin's tests include it
    (base / "few" / order).parent.mkdir(parents=True)
    shutil.copy(template / order, base / "few" / order)
    history = versions.synthetic(base / "few", base / "template")
    return versions.make_plugin(history, OLDEST, base / "exo-ada", ANSWERS)


@dataclass(frozen=True)
class Hostile:
    """An update in odd circumstances, and how it has to end."""

    arrange: Change
    refusal: str = ""  # a regular expression; with one, the project stays untouched
    half_way: str = ""  # the same, but git has to bring back what was there
    conflicts: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()  # what must not be brought back
    dropped: tuple[str, ...] = ()  # Ada's changes that only git has afterwards
    to: str = NEXT
    data: dict[str, str] = field(default_factory=dict)
    committed: bool = True
    by: Callable[..., None] = update
    marks: tuple[pytest.MarkDecorator, ...] = ()


CANT_CHANGE = "which can't change. Use that, or render a new plugin into another folder"
COMPUTED = "Leave it out of --data"
BOTH = ("backend", "kit/engine/sampler")  # the author's, and the template's
IS_LINK = "is a link or lies in one, and copier would write through it. Put the folder itself there"
LINKS = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
HOSTILE = {
    # The project
    "a changed file": Hostile(add("README.md"), "is dirty", committed=False),
    "a new file": Hostile(write("new.py"), "is dirty", committed=False),
    "no git": Hostile(delete(".git"), "git-tracked", committed=False),
    "a bigger repository": Hostile(
        several(add("README.md"), add("exo_ada/kit/engine/sampler.py"), in_a_bigger_repository),
        conflicts=("exo_ada/kit/engine/sampler.py",),
    ),
    "a version that fails in a bigger repository": Hostile(
        several(add("README.md"), in_a_bigger_repository), half_way="no_such_answer", to=BROKEN
    ),
    "all copied again": Hostile(edit_own_files, by=recopy, committed=False),
    "all copied over it": Hostile(edit_own_files, by=copy_over, committed=False),
    # Its answers file
    "no answers file": Hostile(delete(STORED), "emplate not found|template references"),
    "an empty answers file": Hostile(write(STORED, ""), "NoneType"),
    "broken YAML": Hostile(put(STORED, "license: MIT", "license: [MIT"), "parsing a flow"),
    "a null": Hostile(put(STORED, "license: MIT", "license: null"), 'to question "license"'),
    "an edited answer": Hostile(
        several(put(STORED, "user_email: ada@", "user_email: bob@"), add("pyproject.toml"))
    ),
    "an edited name": Hostile(
        put(STORED, "project_name: exo-ada", "project_name: exo-bob"), CANT_CHANGE
    ),
    "an edited engine": Hostile(
        put(STORED, "engine_name: lovelace", "engine_name: bob"), CANT_CHANGE
    ),
    "an edited class": Hostile(
        put(STORED, "engine_class: Countess", "engine_class: Bob"), CANT_CHANGE
    ),
    "an edited variant": Hostile(
        # The default is what it was, and is taken.
        several(put(STORED, "\nvariant: numpy", "\nvariant: rkllm"), add("exo_ada/backend.py"))
    ),
    "a lost name": Hostile(put(STORED, "project_name: exo-ada\n", ""), CANT_CHANGE),
    "a lost identity": Hostile(put(STORED, "_identity:", "identity:"), "lost its line _identity"),
    "a lost answer": Hostile(put(STORED, "license: MIT\n", ""), "lost its line license"),
    "a name edited everywhere": Hostile(replace_all("exo-ada", "exo-bob"), "has no folder exo_bob"),
    "an identity that is none": Hostile(
        put(STORED, "_identity: {", "_identity: #{"), "lost its line _identity"
    ),
    "an identity that is a list": Hostile(
        put(STORED, "_identity: {", "_identity: [exo-ada] #{"), "lost its line _identity"
    ),
    "a lost answer that nobody was asked": Hostile(
        several(put(STORED, "license: MIT\n", ""), put(STORED, "_asked: [", "_asked: [] #[")),
        "lost its line _asked",
    ),
    "a lost answer and its question": Hostile(
        several(put(STORED, "license: MIT\n", ""), put(STORED, "_asked: [", "asked: #[")),
        "lost its line _asked",
    ),
    "an answer of which nobody was asked": Hostile(
        add(STORED, "evil: '{' # }\n"), "an answer that was never asked"
    ),
    "a name written twice": Hostile(add(STORED, "project_name: exo-bob\n"), CANT_CHANGE),
    "settings of copier's": Hostile(
        add(STORED, "_tasks: [touch pwned]\n_exclude: ['*']\n_subdirectory: ..\n")
    ),
    "code in YAML": Hostile(
        add(STORED, "x: !!python/object/apply:os.getcwd []\n"), "could not determine a constructor"
    ),
    "an option for git": Hostile(
        put(STORED, f"_commit: {OLDEST}", "_commit: --upload-pack=touch"), "Unknown revision"
    ),
    "another answers file": Hostile(
        rename(STORED, "elsewhere.yml"), "Leave out --answers-file", by=update_from_elsewhere
    ),
    "from the future": Hostile(
        put(STORED, f"_commit: {OLDEST}", f"_commit: {STRICTER}"), "[Dd]owngrad"
    ),
    "from nowhere": Hostile(put(STORED, f"_commit: {OLDEST}", "_commit: v0.0.7"), "v0.0.7"),
    # The answers that are given
    "another name": Hostile(nothing, CANT_CHANGE, data={"project_name": "exo-bob"}),
    "another variant": Hostile(nothing, CANT_CHANGE, data={"variant": "rkllm"}),
    "another engine": Hostile(nothing, CANT_CHANGE, data={"engine_name": "bob"}),
    "another class": Hostile(nothing, CANT_CHANGE, data={"engine_class": "BobInferenceEngine"}),
    "another package": Hostile(nothing, COMPUTED, data={"package": "exo_bob"}),
    "no variant": Hostile(nothing, COMPUTED, data={"numpy": ""}),
    "two variants": Hostile(nothing, COMPUTED, data={"rkllm": "."}),
    # The new version
    "a name that is refused now": Hostile(nothing, CANT_CHANGE, to=STRICTER),
    "a text that is refused now": Hostile(nothing, "is not accepted", to=NO_PERCENT),
    "a choice that is gone": Hostile(nothing, "license: MIT is not accepted", to=FEWER_CHOICES),
    "another choice for it": Hostile(
        add("README.md"), to=FEWER_CHOICES, data={"license": "Apache-2.0"}
    ),
    "a version that fails": Hostile(add("README.md"), half_way="no_such_answer", to=BROKEN),
    # Ada's own files
    "odd names, and an ignored file": Hostile(
        several(
            *(write(path) for path in ("exo_ada/my device.py", "exo_ada/ä [1].py", "#.txt")),
            add(".gitignore", "*.local\n"),
            write("ada.local"),
        )
    ),
    "an own file is a package": Hostile(
        several(
            rename("exo_ada/backend.py", "exo_ada/backends/__init__.py"),
            rename("exo_ada/backends", "exo_ada/backend"),
            add("exo_ada/backend/__init__.py"),
        ),
        absent=("exo_ada/backend.py",),
    ),
    "a file was the template's and is one's own": Hostile(write("tests/test_backend.py")),
    # Files of both, in the author's way
    "files are deleted": Hostile(
        several(
            delete("exo_ada/detection.py"),
            delete("exo_ada/kit/engine/sampler.py"),
            add("README.md"),
        ),
        absent=("exo_ada/detection.py", "exo_ada/kit/engine/sampler.py"),
    ),
    "files are renamed": Hostile(
        several(
            *(add(f"exo_ada/{name}.py") for name in BOTH),
            *(rename(f"exo_ada/{name}.py", f"exo_ada/{name}_of_mine.py") for name in BOTH),
        ),
        absent=("exo_ada/backend.py", "exo_ada/kit/engine/sampler.py"),
    ),
    "files are links": Hostile(
        several(
            *(add(f"exo_ada/{name}.py") for name in BOTH),
            *(rename(f"exo_ada/{name}.py", f"{Path(name).name}_elsewhere.py") for name in BOTH),
            *(
                link(
                    f"exo_ada/{name}.py",
                    f"{name.count('/') * '../'}../{Path(name).name}_elsewhere.py",
                )
                for name in BOTH
            ),
        ),
        marks=(LINKS,),
    ),
    # The template's files
    "a template's file is changed": Hostile(
        several(
            add("exo_ada/kit/engine/sampler.py"), add("CONTRIBUTING.md"), add("exo_ada/engine.py")
        ),
        conflicts=("exo_ada/kit/engine/sampler.py",),
    ),
    "the same line is changed": Hostile(
        put("CONTRIBUTING.md", "# How to work on exo-ada", MINE), conflicts=("CONTRIBUTING.md",)
    ),
    "a folder is a link out of the project": Hostile(
        several(rename("tests", "../tests"), link("tests", "../tests")), IS_LINK, marks=(LINKS,)
    ),
    **{
        f"{folder} is a link within the project": Hostile(
            several(
                *(write(f"{folder}/{name}.txt") for name in ("one", "two")),
                rename(folder, "elsewhere"),
                link(folder, os.path.relpath("elsewhere", Path(folder).parent)),
            ),
            IS_LINK,
            marks=(LINKS,),
        )
        for folder in ("exo_ada", "tests", ".github/workflows")
    },
    "lines end as on Windows": Hostile(
        several(
            *(add(f"exo_ada/kit/{name}.py") for name in ("engine/sampler", "metrics")),
            *(windows_lines(f"exo_ada/kit/{name}.py") for name in ("engine/sampler", "metrics")),
        ),
        conflicts=("exo_ada/kit/engine/sampler.py",),
    ),
    "a dropped file is changed": Hostile(
        add("NOTES.md"), absent=("NOTES.md",), dropped=("NOTES.md",)
    ),
    "a file is in the way": Hostile(
        write(".pre-commit-config.yaml"), conflicts=(".pre-commit-config.yaml",)
    ),
    "a folder is in the way": Hostile(write(".pre-commit-config.yaml/ada.txt"), half_way=".*"),
    "an ignored file is in the way": Hostile(
        several(add(".gitignore", ".pre-commit*\n"), write(".pre-commit-config.yaml")),
        marks=(
            pytest.mark.xfail(strict=True, reason="copier overwrites it; CONTRIBUTING.md says so"),
        ),
    ),
}


def state(plugin: Path) -> tuple[dict[str, bytes], str]:
    """The files and what git says of them."""
    there = (top_of(plugin) / ".git").exists()
    return files_of(plugin), git(plugin, "status", "--porcelain") if there else ""


def check_refused(case: Hostile, plugin: Path) -> None:
    """The update stops with a sentence, and nothing has changed."""
    before = state(plugin)
    with pytest.raises(Exception, match=case.refusal):
        case.by(plugin, case.to, **case.data)
    assert state(plugin) == before


def check_taken_back(plugin: Path, before: dict[str, bytes]) -> None:
    """CONTRIBUTING's way back brings all back, and touches nothing beside the plugin."""
    for command in TAKE_BACK.split(" && "):
        git(plugin, *shlex.split(command)[1:])
    assert files_of(top_of(plugin)) == before


def check_nothing_lost(case: Hostile, plugin: Path) -> None:
    """The update came to its end, and every file with a word of Ada's still has it."""
    before = files_of(plugin)
    case.by(plugin, case.to, **case.data)
    after = files_of(plugin)
    assert f"_commit: {case.to}\n".encode() in after[STORED]
    assert "tests/driver.py" in after
    word = MINE.strip().encode()
    hers = [path for path, text in before.items() if word in text]
    lost = [path for path in hers if word not in after.get(path, b"")]
    assert lost == list(case.dropped)
    for path in case.dropped:
        assert MINE in git(plugin, "show", f"HEAD:{path}")
    assert [path for path in case.absent if path in after] == []
    unmerged = git(plugin, "diff", "--name-only", "--diff-filter=U", "--relative").split("\n")
    assert tuple(unmerged[:-1]) == case.conflicts
    assert [path for path in after if path.endswith(".rej")] == []


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=name, marks=case.marks) for name, case in HOSTILE.items()]
)
def test_a_hostile_update(old_plugin: Path, tmp_path: Path, case: Hostile) -> None:
    # A copy in another folder: the default of project_name is another there.
    plugin = tmp_path / "it's [mine] äö" / "clone"
    shutil.copytree(old_plugin, plugin, symlinks=True)
    case.arrange(plugin)
    if case.committed:
        commit(plugin, "Ada's")
    if case.refusal:
        check_refused(case, plugin)
        return
    before = files_of(top_of(plugin))
    if case.half_way:
        with pytest.raises(Exception, match=case.half_way):
            case.by(plugin, case.to, **case.data)
    else:
        check_nothing_lost(case, plugin)
    if case.committed:
        check_taken_back(plugin, before)


@pytest.mark.parametrize(
    ("defaults", "data", "refused"),
    [(True, {}, True), (True, {"license": "MIT"}, False), (False, {}, False)],
    ids=["by default", "by --data", "at the prompt"],
)
def test_who_may_change_an_answer(
    template: Path, old_plugin: Path, defaults: bool, data: dict[str, str], refused: bool
) -> None:
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(template), extensions=[AnsibleCoreFiltersExtension]
    )
    macros: Any = environment.get_template("hooks/answers.jinja").module
    conf = SimpleNamespace(dst_path=old_plugin, answers_file=STORED, defaults=defaults, data=data)
    external = SimpleNamespace(before=answers_of(old_plugin))
    assert macros.kept_problem(conf, external, "license", "MIT") == ""
    problem = macros.kept_problem(conf, external, "license", "Apache-2.0")
    assert ("license: MIT is not accepted" in problem) == refused


KILLED = """
import os, sys
import copier
plugin, to, files = sys.argv[1], sys.argv[2], 8

def watch(event, arguments):
    global files
    if event == "open" and "w" in str(arguments[1]) and str(arguments[0]).startswith(plugin):
        files -= 1
        if not files:
            os._exit(9)

sys.addaudithook(watch)
copier.run_update(plugin, vcs_ref=to, defaults=True, overwrite=True, quiet=True)
"""


def test_an_update_that_is_killed(old_plugin: Path, tmp_path: Path) -> None:
    plugin, rubbish = tmp_path / "exo-ada", tmp_path / "rubbish"
    shutil.copytree(old_plugin, plugin)
    rubbish.mkdir()
    several(add("README.md"), add("exo_ada/engine.py"), add(".gitignore", "*.local\n"))(plugin)
    write("ada.local")(plugin)
    commit(plugin, "Ada's")
    before = files_of(plugin)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(plugin), NEXT],
        env=os.environ | {"TMPDIR": str(rubbish)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 9, done.stderr
    assert files_of(plugin) != before
    with pytest.raises(Exception, match="is dirty"):
        update(plugin)
    check_taken_back(plugin, before)


def test_the_lowest_copier_updates_alike(old_plugin: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((REPOSITORY / "copier.yml").read_text(encoding="utf-8"))
    lowest = f"copier=={config['_min_copier_version']}"
    python = make_venv(tmp_path / "venv")
    run(uv(), "pip", "install", "--quiet", "--python", python, lowest)
    plugin, other = tmp_path / "exo-ada", tmp_path / "other" / "exo-ada"
    for folder in (plugin, other):
        shutil.copytree(old_plugin, folder)
        several(add("exo_ada/backend.py"), add("README.md"), add("exo_ada/kit/engine/sampler.py"))(
            folder
        )
        (folder / "exo_ada/models.py").unlink()
        commit(folder, "Ada's")
    run(python, "-m", "copier", "update", "--defaults", "--vcs-ref", NEXT, cwd=plugin)
    update(other)
    assert files_of(plugin) == files_of(other)
