"""What the tests of `exo-engine check` share."""

import io
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from exo_engine_check.cli import app
from exo_engine_check.run import Options, check

# Everything that a default run does before it drives nodes, and one answer.
SHORT = [f"EX{n}" for n in range(8)] + ["EX801"]
PLUGINS = Path(__file__).parent / "plugins"


def plugin(folder: Path, name: str = "steps") -> Path:
    """A copy of a plugin of `plugins/` that a test may break."""
    skipped = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(PLUGINS / name, folder / name, ignore=skipped))


def faults(path: Path, *select: str, static: bool = False) -> dict[str, list[str]]:
    """The faults of a run: places and messages by id."""
    report = check(path, Options(select=list(select), static=static))
    by_id: dict[str, list[str]] = {}
    for result, fault in report.faults:
        place = f"{fault.place}: " if fault.place.path else ""
        by_id.setdefault(result.id, []).append(place + fault.message)
    return by_id


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command; it never ends with a traceback."""
    out, err = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        app(["check", *map(str, arguments)])
    code = ended.value.code
    assert isinstance(code, int)
    texts = []
    for stream in (out, err):
        stream.flush()
        stream.seek(0)
        texts.append(stream.read())
    return code, texts[0], texts[1]
