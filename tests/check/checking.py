"""What the tests of `exo-engine check` share."""

import shutil
from pathlib import Path

from exo_engine_check.cli import app
from exo_engine_check.run import check
from typer.testing import CliRunner


def copy_of(plugin: Path, folder: Path) -> Path:
    """A copy of a rendered plugin that a test may break; its tests are left out."""
    skipped = shutil.ignore_patterns("tests", "__pycache__", ".github")
    return Path(shutil.copytree(plugin, folder, ignore=skipped))


def ids(path: Path) -> list[str]:
    """The checks that found something, one id a finding."""
    return [fault.id for fault in check(path, [], []).faults]


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command; it never ends with a traceback."""
    done = CliRunner().invoke(app, ["check", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr
