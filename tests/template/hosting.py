"""The template at an address of the web, which git finds in a folder."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import history
import pytest
from conftest import render_into
from plumbum import local

ADDRESS = "https://github.com/ada/exo-engine-template"


@dataclass(frozen=True)
class Hosted:
    """A repository of the template, with one commit that has the tag v0.1.0."""

    folder: Path
    settings: dict[str, str]
    commit: str

    @classmethod
    def make(cls, template: Path, folder: Path) -> "Hosted":
        """Commit the template into a folder."""
        settings = history.hermetic(folder)
        with environment(settings):
            repository = folder / "template"
            shutil.copytree(template, repository)
            history.git(repository, "init", "--quiet")
            history.commit(repository, "v0.1.0")
            history.git(repository, "tag", "v0.1.0")
            commit = history.git(repository, "rev-parse", "HEAD").strip()
        with Path(settings["GIT_CONFIG_GLOBAL"]).open("a", encoding="utf-8") as config:
            config.write(f'[url "{repository.as_uri()}"]\ninsteadOf = {ADDRESS}\n')
            config.write(f"insteadOf = {ADDRESS}.git\ninsteadOf = git@github.com:ada/\n")
        return cls(repository, settings, commit)

    def render(self, destination: Path, source: str = ADDRESS, **answers: str) -> Path:
        """As `copier copy` of the address does."""
        with environment(self.settings):
            return render_into(source, destination, **answers)


@contextmanager
def environment(settings: dict[str, str]) -> Iterator[None]:
    """Settings for git and for copier, whose git has taken an environment at its import."""
    with pytest.MonkeyPatch.context() as patch, local.env(**settings):
        for name, value in settings.items():
            patch.setenv(name, value)
        yield
