"""The command `exo-engine`."""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from .files import CannotRunError, DeadlineError
from .report import printable

FORMATS = ("text", "json", "github")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="exo-engine", description="Tools for inference engine plugins of exo."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and end")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="will exo discover, load and run this plugin?",
        description="Will exo discover, load and run this plugin? It runs the plugin's code, which "
        "is trusted as much as by pip install; --static only reads it. Ends with 0: it will, 1: "
        "faults were found, 2: the check could not be made.",
    )
    add = check.add_argument
    add("path", nargs="?", type=Path, default=Path(), help="a project's folder or a wheel")
    add("--static", action="store_true", help="run no code of the plugin")
    add("--strict", action="store_true", help="count faults of exo's own that the plugin leaves")
    add(
        "--python",
        default=sys.executable,
        type=_command,
        help="run the plugin with this Python, on its exo",
    )
    add("--traceback", action="store_true", help="show where errors of the plugin come from")
    add("--report", type=Path, help="write what the plugin can do: CAPABILITIES.md")
    add("--format", choices=FORMATS, default="text", help="how the report is written")
    add("--select", action="append", default=[], help="only checks that begin so: EX3,EX401")
    add("--ignore", action="append", default=[], help="leave out checks: EX503")
    add("--timeout", type=_positive, default=60.0, help="seconds for all of it (60)")
    add("--memory", type=_positive, default=4.0, help="GiB that the plugin may hold (4)")
    return parser


class _Version(argparse.Action):
    """Looks the version up when it is wanted: that takes longer than reading a plugin."""

    def __call__(self, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            text = version("exo-engine-template")
        except PackageNotFoundError:
            text = "of a folder, not installed"
        _write(f"exo-engine {text}\n")
        sys.exit(0)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def _command(text: str) -> str:
    """A program by its path, which holds in every folder, or by its name on PATH.

    Not resolved: a virtual environment's Python is a link to another one.
    """
    return os.path.abspath(text) if os.path.dirname(text) else text


def app(arguments: list[str] | None = None) -> None:
    """Run the command, and end with its exit code."""
    options = vars(_parser().parse_args(arguments))
    del options["command"], options["version"]
    try:
        sys.exit(_check(options.pop("path"), options.pop("format"), options))
    except (CannotRunError, DeadlineError) as error:
        _write(f"exo-engine: {printable(error)}\n", sys.stderr)
        sys.exit(2)


def _check(path: Path, form: str, values: dict[str, object]) -> int:
    from . import formats
    from .run import Options, check

    options = Options(**values)  # type: ignore[arg-type]  # the parser's own types
    with _deadline(options.timeout):
        report = check(path, options)
    _write(formats.write(report, form))
    if report.nothing_ran:
        _write(f"exo-engine: {printable(report.nothing_ran)}\n", sys.stderr)
    return 1 if report.faults else 2 if report.nothing_ran else 0


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """End reading, too, when the time is over; the plugin's process is ended a little before."""

    def over(*_: object) -> None:
        raise DeadlineError(f"the check was not done after {seconds:g} s (--timeout)")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds + 2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _write(text: str, stream: object = None) -> None:
    """Write as UTF-8, whatever the terminal's own encoding is."""
    buffer = getattr(stream or sys.stdout, "buffer")  # noqa: B009 - a text stream has it
    buffer.write(text.encode("utf-8", "replace"))
    buffer.flush()


if __name__ == "__main__":
    app()
