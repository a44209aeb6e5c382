"""The command `exo-engine`."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .run import Report

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


class Format(StrEnum):
    """How the report is written."""

    rich = "rich"
    json = "json"
    sarif = "sarif"
    github = "github"


@app.callback()
def exo_engine() -> None:
    """Tools for inference engine plugins of exo."""


@app.command()
def check(
    path: Annotated[Path, typer.Argument(help="A project's folder or a wheel.")] = Path(),
    format_: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.rich,
    select: Annotated[
        list[str] | None, typer.Option(help="Only checks that begin so: EX3,EX401.")
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Leave out checks: EX503.")] = None,
    import_: Annotated[
        bool,
        typer.Option("--import", help="Load the plugin in a process of its own, and drive it."),
    ] = False,
    python: Annotated[str, typer.Option(help="The Python for --import.")] = sys.executable,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that --import may take.")] = 60,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what has one right answer.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show what --fix would do.")] = False,
) -> None:
    """Will exo discover, load and run this plugin?

    Ends with 0: it will, 1: faults were found, 2: the check could not be made.
    """
    from .files import CannotRunError
    from .run import Loads
    from .run import check as run

    try:
        if fix or diff:
            from .fixes import apply

            shown = apply(path, write=fix and not diff)
            if diff:
                _write(shown)
                raise typer.Exit(1 if shown else 0)
        loads = Loads(python, timeout) if import_ else None
        report = run(path, select or [], ignore or [], loads)
    except CannotRunError as error:
        typer.echo(f"exo-engine: {error}", err=True)
        raise typer.Exit(2) from None
    _show(report, format_)
    raise typer.Exit(1 if report.faults else 0)


def _show(report: "Report", format_: Format) -> None:
    from . import formats

    if format_ is not Format.rich:
        _write(getattr(formats, f"as_{format_.value}")(report))
    elif sys.stdout.isatty():
        formats.show(report)
    else:
        _write(formats.as_text(report))


def _write(text: str) -> None:
    """Write to stdout as UTF-8, whatever the terminal's own encoding is."""
    sys.stdout.buffer.write(text.encode("utf-8", "replace"))
    sys.stdout.flush()
