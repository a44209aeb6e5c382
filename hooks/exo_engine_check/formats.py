"""A report as text for people, and as JSON and GitHub annotations."""

import json
from collections.abc import Iterator

from .checks import all_checks
from .findings import FAILED, NOT_RUN, PASSED, README, Report, manual, printable, title

_COLOURS = {"bold": "1", "red": "1;31", "green": "1;32", "cyan": "36", "dim": "2"}


def write(report: Report, form: str, colour: bool = False) -> str:
    """A report in one of the forms."""
    if form != "text":
        return str(globals()[f"as_{form}"](report))
    pieces = (
        f"\033[{_COLOURS[style]}m{text}\033[0m" if colour and style else text
        for text, style in _pieces(report)
    )
    return "".join(pieces)


def summary(report: Report) -> str:
    """One line: how many faults, and what became of the checks."""
    count = len(report.faults)
    faults = f"{count} fault{'' if count == 1 else 's'}" if count else "no fault"
    passed = len(report.with_state(PASSED))
    missing = len(report.with_state(NOT_RUN))
    parts = [faults, f"{passed} check{'' if passed == 1 else 's'} passed"]
    parts += [f"{missing} not run"] if missing else []
    parts += [f"{len(report.ignored)} ignored"] if report.ignored else []
    return ", ".join(parts)


def url(name: str) -> str:
    return f"{README}#{name}"


def _pieces(report: Report) -> Iterator[tuple[str, str]]:
    """The text in pieces, each with its style."""
    checks = all_checks()
    for result in report.results:
        if not result.findings:
            continue
        state = "" if result.state == FAILED else f" ({result.state})"
        yield f"{result.id} ", "red"
        yield f"{title(checks[result.id])}{state}\n", "bold"
        for finding in result.findings:
            place = printable(finding.place)
            yield "  ", ""
            yield place, "cyan" if place else ""
            yield f"{': ' if place else ''}{printable(finding.message)}\n", ""
        yield "".join(f"    {line}\n" for line in manual(checks[result.id]).splitlines()), ""
        yield f"    alone: {report.again} --select {result.id}\n    {url(result.id)}\n\n", "dim"
    for why, names in _not_run(report).items():
        yield f"{', '.join(names)} not run: {printable(why)}\n", ""
    for name, reason in report.ignored.items():
        yield f"{name} ignored: {printable(reason) or 'no reason given'}\n", ""
    for note in report.notes:
        yield f"note: {printable(note)}\n", ""
    yield f"{summary(report)}\n", "red" if report.faults or report.nothing_ran else "green"


def _not_run(report: Report) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for result in report.with_state(NOT_RUN):
        found.setdefault(result.why, []).append(result.id)
    return found


def as_json(report: Report) -> str:
    """What a script reads."""
    checks = all_checks()
    faults = [
        {
            "id": name,
            "title": title(checks[name]),
            "path": finding.place.path or None,
            "line": finding.place.line or None,
            "message": printable(finding.message),
            "help": manual(checks[name]),
            "url": url(name),
        }
        for name, finding in report.faults
    ]
    content = {
        "faults": faults,
        "states": {result.id: result.state for result in report.results},
        "not_run": {r.id: printable(r.why) for r in report.with_state(NOT_RUN)},
        "ignored": report.ignored,
        "passed": len(report.with_state(PASSED)),
        "notes": [printable(note) for note in report.notes],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def as_github(report: Report) -> str:
    """Annotations of a GitHub workflow, one a fault, and the summary."""
    lines = []
    checks = all_checks()
    for name, finding in report.faults:
        place = finding.place
        fields = {"file": place.path, "line": str(place.line or "")}
        fields["title"] = f"{name} {title(checks[name])}"
        given = ",".join(f"{k}={_property(v)}" for k, v in fields.items() if v)
        lines.append(f"::error {given}::{_data(printable(finding.message))}")
    lines += [f"::notice::{_data(printable(note))}" for note in report.notes]
    return "\n".join([*lines, summary(report)]) + "\n"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def table() -> str:
    """The README's table of checks, from the classes."""
    lines = ["| id | check | why, and how to mend it |", "| --- | --- | --- |"]
    for name, check in all_checks().items():
        text = " ".join(manual(check).split()).replace("|", "\\|")
        lines.append(f'| <a id="{name}"></a>{name} | {title(check)} | {text} |')
    return "\n".join(lines) + "\n"
