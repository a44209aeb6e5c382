"""Whose template? A plugin names the one that it was rendered from, by a commit, or none."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import copier
import history
import pytest
import yaml
from conftest import REPOSITORY, Render
from hosting import ADDRESS, Hosted, environment
from jinja2 import FileSystemLoader
from jinja2.sandbox import SandboxedEnvironment
from jinja2_ansible_filters import AnsibleCoreFiltersExtension

NAMES_IT = ("README.md", "CONTRIBUTING.md", ".pre-commit-config.yaml", ".github/workflows/ci.yml")
SAYS_SO = NAMES_IT[1:]


def text_of(plugin: Path, name: str) -> str:
    return (plugin / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("source", [ADDRESS, f"{ADDRESS}.git", "gh:ada/exo-engine-template"])
def test_a_plugin_names_its_template_by_a_whole_commit(
    hosted: Hosted, tmp_path: Path, source: str
) -> None:
    plugin = hosted.render(tmp_path / "exo-x", source)
    for name in NAMES_IT:
        text = text_of(plugin, name)
        addresses = re.findall(r"https://github\.com/[\w-]+/exo-engine-template[\w.]*", text)
        assert set(addresses) == {ADDRESS}, name
        assert hosted.commit in text, name
    hooks = yaml.safe_load(text_of(plugin, ".pre-commit-config.yaml"))["repos"]
    assert [hook["rev"] for hook in hooks if hook["repo"] == ADDRESS] == [hosted.commit]
    jobs = yaml.safe_load(text_of(plugin, ".github/workflows/ci.yml"))["jobs"]
    assert f"git+{ADDRESS}@{hosted.commit}'" in str(jobs["check"])


def test_nobody_elses_name_is_in_a_plugin(render: Render, hosted: Hosted, tmp_path: Path) -> None:
    for plugin in (render("exo-x"), hosted.render(tmp_path / "exo-y")):
        for path in (path for path in plugin.rglob("*") if path.is_file()):
            text = path.read_text(encoding="utf-8", errors="replace")
            assert "/org/exo-engine" not in text, path
            assert "exo-engine-template@v" not in text, path


def test_a_plugin_from_a_folder_names_none_and_says_what_to_write(render: Render) -> None:
    plugin = render("exo-x")
    for name in SAYS_SO:
        text = text_of(plugin, name)
        assert re.search(r"rendered from\s[#\s]*a[#\s]+folder", text), name
        assert "COMMIT" in text, name
    assert "check" not in yaml.safe_load(text_of(plugin, ".github/workflows/ci.yml"))["jobs"]
    assert "exo-engine-template" not in text_of(plugin, "README.md")
    yaml.safe_load(text_of(plugin, ".pre-commit-config.yaml"))


def test_uncommitted_changes_are_told_and_never_named(
    hosted: Hosted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = shutil.copytree(hosted.folder, tmp_path / "template")
    (template / "template/NEW.md").write_text("new\n", encoding="utf-8")
    plugin = tmp_path / "exo-x"
    with environment(hosted.settings), pytest.warns(Warning, match="Dirty template changes"):
        copier.run_copy(str(template), plugin, defaults=True, vcs_ref="HEAD")
    assert (plugin / "NEW.md").is_file()
    assert "changes that are not committed" in capsys.readouterr().err
    assert re.search(r"^_commit: v0\.1\.0-1-g", text_of(plugin, ".copier-answers.yml"), re.M)
    # The way out that CONTRIBUTING.md names.
    answers = plugin / ".copier-answers.yml"
    with environment(hosted.settings):
        history.git(template, "add", "--all")
        history.git(template, "commit", "--quiet", "--message", "New")
        history.git(template, "tag", "v0.2.0")
        history.git(plugin, "init", "--quiet")
        history.commit(plugin, "Rendered")
        with pytest.raises(ValueError, match="Unknown revision"):
            copier.run_update(plugin, defaults=True, overwrite=True, quiet=True)
        text = answers.read_text(encoding="utf-8")
        answers.write_text(re.sub(r"-1-g\w+", "", text), encoding="utf-8")
        history.commit(plugin, "Mended")
        copier.run_update(plugin, defaults=True, overwrite=True, quiet=True)
    assert "_commit: v0.2.0" in answers.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ("gh:ada/x", "https://github.com/ada/x"),
        ("gl:ada/x.git", "https://gitlab.com/ada/x"),
        ("git@example.com:ada/x.git", "https://example.com/ada/x"),
        ("git+https://example.com:8443/ada/x", "https://example.com:8443/ada/x"),
        ("https://example.com/ada/x/", "https://example.com/ada/x"),
        ("https://ada:SECRET@example.com/ada/x", ""),
        ("https://example.com/ada/x?key=SECRET", ""),
        ("https://example.com/ada/x' && curl evil", ""),
        ("https://example.com/ada/x\n- run: evil", ""),
        ("https://example.com/a/../x", ""),
        ("https://example.com/-x/y", ""),
        ("http://example.com/ada/x", ""),
        ("/home/ada/x", ""),
        ("C:\\x", ""),
        ("file:///home/ada/x", ""),
        (None, ""),
    ],
)
def test_only_a_plain_address_is_named(template: Path, source: str | None, url: str) -> None:
    macros: Any = (
        SandboxedEnvironment(
            loader=FileSystemLoader(template), extensions=[AnsibleCoreFiltersExtension]
        )
        .get_template("hooks/answers.jinja")
        .module
    )
    conf = SimpleNamespace(vcs_ref_hash="c" * 40, src_path=template)
    answers = {"_src_path": source}
    assert macros.template_url(answers, conf) == url
    assert macros.template_commit(answers, conf) == ("c" * 40 if url else "")
    conf.vcs_ref_hash = None
    assert macros.template_url(answers, conf) == ""


def test_this_repository_says_once_what_org_stands_for() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert text.count("`org` in `gh:org/exo-engine-template` stands for") == 1
    assert text.count("org/exo-engine-template") == 1
