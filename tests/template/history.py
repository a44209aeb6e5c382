"""Git repositories for the tests of updates: versions of the template, and plugins of them."""

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import copier
import yaml
from conftest import REPOSITORY
from packaging.version import Version

OLDEST, PREVIOUS = "v0.0.1", "v0.0.2"
NEXT = "v9999"  # the working tree; newer than any version that there will be
STRICTER, NO_PERCENT, FEWER_CHOICES, BROKEN = "v10001", "v10002", "v10003", "v10004"
ANSWERS = {
    "project_name": "exo-ada",
    "engine_name": "lovelace",
    "engine_class": "CountessInferenceEngine",
    "variant": "numpy",
    "description": 'It\'s "mine": 50 % faster # {{ really }}',
    "user_name": "Ada Łovelace",
    "user_email": "ada@example.com",
    "repository_url": "https://example.com/ada/exo-ada",
    "license": "MIT",
}


def hermetic(folder: Path) -> dict[str, str]:
    """The settings that keep the user's git and copier out of the tests."""
    settings = folder / "settings.yml"
    settings.write_text("{}\n", encoding="utf-8")
    config = folder / "gitconfig"
    config.write_text(
        "[user]\nname = Ada\nemail = ada@example.com\n"
        "[init]\ndefaultBranch = main\n[core]\nautocrlf = false\n[advice]\ndetachedHead = false\n",
        encoding="utf-8",
    )
    return {
        "GIT_CONFIG_GLOBAL": str(config),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "COPIER_SETTINGS_PATH": str(settings),
        "COPIER_CACHE_DIR": str(folder / "copier-cache"),
    }


def git(folder: Path, *arguments: str) -> str:
    """What a git command prints that has to succeed."""
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, encoding="utf-8", timeout=60
    )
    assert done.returncode == 0, f"git {arguments}\n{done.stderr}"
    return done.stdout


def commit(folder: Path, message: str) -> None:
    """Commit all that there is in a folder, ignored files aside."""
    git(folder, "add", "--all", ".")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", message)


def top_of(folder: Path) -> Path:
    """The folder of the repository, or the folder itself where there is none."""
    return next((one for one in (folder, *folder.parents) if (one / ".git").exists()), folder)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file by its path, git's own aside; a link is what it points to."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            files[name] = b"link to " + os.fsencode(os.readlink(path))
        elif path.is_file() and not name.startswith(".git/"):
            files[name] = path.read_bytes()
    return files


@dataclass(frozen=True)
class Edit:
    """What an older version of the template had otherwise."""

    path: str
    change: Callable[[str], str | None]  # None: the older version had no such file

    def undo(self, template: Path) -> None:
        """Take a file back to what it was."""
        file = template / self.path
        text = self.change(file.read_text(encoding="utf-8") if file.exists() else "")
        if text is None:
            file.unlink()
        else:
            file.write_text(text, encoding="utf-8", newline="")


def replace(old: str, new: str) -> Callable[[str], str]:
    """A change that has to change something."""

    def change(text: str) -> str:
        assert old in text, old
        return text.replace(old, new)

    return change


# Undone in this order: the working tree, PREVIOUS, OLDEST.
SINCE_PREVIOUS = [
    Edit(
        "template/{{ package }}/kit/engine/sampler.py",
        lambda text: text + "\n# From the previous one.\n",
    ),
    Edit("template/NOTES.md", lambda _: "Notes, which a later version has no more.\n"),
]
SINCE_OLDEST = [
    # A file that is the author's now was the template's.
    Edit("copier.yml", replace("/tests/test_backend.py{%", "/tests/test_own.py{%")),
    Edit("copier.yml", replace("  default: Apache-2.0\n", "  default: BSD-3-Clause\n")),
    Edit("template/CONTRIBUTING.md.jinja", replace("# Working on ", "# How to work on ")),
    Edit(
        "template/{{ package }}/kit/engine/sampler.py", lambda text: "# From the oldest.\n" + text
    ),
    Edit("template/{{ numpy }}/{{ package }}/backend.py", lambda text: text + "\n# Of old.\n"),
    Edit("template/{{ rkllm }}/{{ package }}/backend.py", lambda text: text + "\n# Of old.\n"),
    Edit("template/.gitattributes", lambda _: None),
    Edit("template/.pre-commit-config.yaml.jinja", lambda _: None),
    Edit("template/tests/driver.py", lambda _: None),
]
# Versions that are still to come, each made from the working tree.
TO_COME = {
    STRICTER: [
        Edit(
            "hooks/answers.jinja",
            replace(
                "{%- if name | length > 40 -%}", "{%- if 'ada' in name or name | length > 40 -%}"
            ),
        ),
    ],
    NO_PERCENT: [
        Edit(
            "hooks/answers.jinja",
            replace("{%- if not text.strip() -%}", "{%- if '%' in text or not text.strip() -%}"),
        ),
    ],
    FEWER_CHOICES: [Edit("copier.yml", replace("    - MIT\n", ""))],
    BROKEN: [
        Edit("template/{{ package }}/kit/engine/sampler.py", lambda text: text + "\n# Newer.\n"),
        Edit("template/tests/zz_last.py.jinja", lambda _: "{{ no_such_answer }}\n"),
    ],
}


@dataclass(frozen=True)
class History:
    """A repository of the template, with NEXT for the working tree."""

    template: Path
    oldest: str
    previous: str


def _lay(working_tree: Path, folder: Path) -> None:
    """Put the working tree in place of what the folder has."""
    for path in folder.iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(working_tree, folder, dirs_exist_ok=True)


def _version(working_tree: Path, folder: Path, tag: str, edits: Iterable[Edit]) -> None:
    """Commit and tag the working tree with these edits."""
    _lay(working_tree, folder)
    for edit in edits:
        edit.undo(folder)
    commit(folder, tag)
    git(folder, "tag", tag)


def synthetic(working_tree: Path, folder: Path) -> History:
    """A history made from the working tree, by edits that an older version could have had."""
    folder.mkdir()
    git(folder, "init", "--quiet")
    _version(working_tree, folder, OLDEST, [*SINCE_PREVIOUS, *SINCE_OLDEST])
    _version(working_tree, folder, PREVIOUS, SINCE_PREVIOUS)
    _version(working_tree, folder, NEXT, [])
    for tag, edits in TO_COME.items():
        _version(working_tree, folder, tag, edits)
    return History(folder, OLDEST, PREVIOUS)


def tags_of(repository: Path) -> list[str]:
    """The versions that the repository has here, the oldest first."""
    tags = git(repository, "tag", "--list", "v*").split()
    return sorted((tag for tag in tags if re.fullmatch(r"v\d+(\.\d+)*", tag)), key=Version)


def own(working_tree: Path, folder: Path) -> History | None:
    """This repository's own versions, and the working tree; None where there are no tags."""
    tags = tags_of(REPOSITORY)
    if not tags:
        return None
    git(folder.parent, "clone", "--quiet", "--no-hardlinks", str(REPOSITORY), str(folder))
    _version(working_tree, folder, NEXT, [])
    return History(folder, tags[0], tags[-1])


def render_version(history: History, tag: str, folder: Path, answers: dict[str, str]) -> Path:
    """A fresh render of one version."""
    copier.run_copy(
        str(history.template), folder, data=answers, vcs_ref=tag, defaults=True, quiet=True
    )
    return folder


def make_plugin(history: History, tag: str, folder: Path, answers: dict[str, str]) -> Path:
    """A plugin made from one version, committed."""
    render_version(history, tag, folder, answers)
    git(folder, "init", "--quiet")
    commit(folder, f"From {tag}")
    return folder


def update(plugin: Path, to: str = NEXT, **data: str) -> None:
    """`copier update --defaults --vcs-ref TO --data NAME=VALUE`."""
    copier.run_update(plugin, data=data, vcs_ref=to, defaults=True, overwrite=True, quiet=True)


def update_from_elsewhere(plugin: Path, to: str = NEXT) -> None:
    """`copier update --defaults --answers-file elsewhere.yml`."""
    options = {"vcs_ref": to, "defaults": True, "overwrite": True, "quiet": True}
    copier.run_update(plugin, answers_file="elsewhere.yml", **options)


def recopy(plugin: Path, to: str = NEXT) -> None:
    """`copier recopy --defaults --overwrite`."""
    copier.run_recopy(plugin, vcs_ref=to, defaults=True, overwrite=True, quiet=True)


def copy_over(plugin: Path, to: str = NEXT) -> None:
    """`copier copy --defaults --overwrite` into the plugin."""
    stored = yaml.safe_load((plugin / ".copier-answers.yml").read_text(encoding="utf-8"))
    options = {"vcs_ref": to, "defaults": True, "overwrite": True, "quiet": True}
    copier.run_copy(stored["_src_path"], plugin, **options)


def answers_of(plugin: Path) -> dict[str, str]:
    """The stored answers, copier's own entries aside."""
    stored = yaml.safe_load((plugin / ".copier-answers.yml").read_text(encoding="utf-8"))
    return {name: value for name, value in stored.items() if not name.startswith("_")}


@functools.cache
def author_patterns() -> list[str]:
    """The author's files as copier.yml has them, twice."""
    config = yaml.safe_load((REPOSITORY / "copier.yml").read_text(encoding="utf-8"))
    patterns = config["_skip_if_exists"]
    lines = [entry for entry in config["_exclude"] if "_copier_operation" in entry]
    when = "{{% if _copier_operation == 'update' %}}{}{{% endif %}}"
    assert lines == [when.format(pattern) for pattern in patterns]
    return [pattern.removeprefix("/") for pattern in patterns]


def author_files() -> list[str]:
    """The author's files of a plugin called exo-ada."""
    return [pattern.replace("*", "exo_ada") for pattern in author_patterns()]
