"""A report as text for people, and as JSON and GitHub annotations."""

import json

from .report import (
    CANNOT,
    FAILED,
    LEFT,
    NOT_RUN,
    NOT_THERE,
    PASSED,
    Fault,
    Report,
    Result,
    printable,
)

MANUAL = "docs/checks.md"


def write(report: Report, form: str) -> str:
    """A report in one of the forms."""
    return {"text": as_text, "json": as_json, "github": as_github}[form](report)


def summary(report: Report) -> str:
    """One line: how many faults, and what became of the checks."""
    count = len(report.faults)
    faults = f"{count} fault{'' if count == 1 else 's'}" if count else "no fault"
    passed = len(report.with_state(PASSED))
    parts = [faults, f"{passed} check{'' if passed == 1 else 's'} passed"]
    for state in (CANNOT, LEFT, NOT_THERE, NOT_RUN):
        parts += [f"{missing} {state}"] if (missing := len(report.with_state(state))) else []
    parts += [f"{len(report.ignored)} ignored"] if report.ignored else []
    return ", ".join(parts)


def page(result: Result) -> str:
    """Where the manual of a check stands."""
    return f"{MANUAL}#{result.id.lower()}"


def as_text(report: Report) -> str:
    """What a person reads."""
    lines: list[str] = []
    for result in report.results:
        if result.faults and result.state != LEFT:
            lines += _faults(report, result)
    for state in (CANNOT, NOT_THERE, NOT_RUN):
        for why, names in _by_why(report, state).items():
            lines.append(f"{', '.join(names)} {state}: {printable(why)}")
    lines += _left(report)
    for name, reason in report.ignored.items():
        lines.append(f"{name} ignored: {printable(reason) or 'no reason given'}")
    lines += [f"note: {printable(note)}" for note in report.notes]
    return "\n".join([*lines, summary(report)]) + "\n"


def _faults(report: Report, result: Result) -> list[str]:
    """A check's faults, what they mean, and how it runs alone."""
    state = "" if result.state == FAILED else f" ({result.state})"
    return [
        f"{result.id} {result.check.title()}{state}",
        *(line for fault in result.faults for line in _fault(fault, report.traceback)),
        *(f"    {line}" for line in result.check.manual().splitlines()),
        f"    alone: {report.again} {result.alone or f'--select {result.id}'}",
        "",
    ]


def _fault(fault: Fault, traceback: bool) -> list[str]:
    lines = [f"  {fault}"]
    for line in fault.trace.splitlines() if traceback else ():
        lines.append(f"  | {line[: len(line) - len(line.lstrip(' '))]}{printable(line)}")
    return lines


def _left(report: Report) -> list[str]:
    """The faults of exo's own that the plugin leaves."""
    left = [f"  {result.id} {result.check.title()}" for result in report.with_state(LEFT)]
    return ["not so, by a fault of exo's own (--strict counts them):", *left] if left else []


def _by_why(report: Report, state: str) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for result in report.with_state(state):
        reasons.setdefault(result.why, []).append(result.id)
    return reasons


def as_json(report: Report) -> str:
    """What a script reads."""
    faults = [
        {
            "id": result.id,
            "title": result.check.title(),
            "path": printable(fault.place.path) or None,
            "line": fault.place.line or None,
            "message": printable(fault.message),
            "help": result.check.manual(),
            "page": page(result),
        }
        for result, fault in report.faults
    ]
    content = {
        "faults": faults,
        "states": {result.id: result.state for result in report.results},
        "why": {r.id: printable(r.why) for r in report.results if r.why},
        "left": {r.id: [printable(f.message) for f in r.faults] for r in report.with_state(LEFT)},
        "ignored": {name: printable(why) for name, why in report.ignored.items()},
        "capabilities": report.can,
        "cannot": {printable(row): printable(why) for row, why in report.cannot.items()},
        "passed": len(report.with_state(PASSED)),
        "notes": [printable(note) for note in report.notes],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def as_github(report: Report) -> str:
    """Annotations of a GitHub workflow, one a fault, and the summary."""
    lines: list[str] = []
    for result, fault in report.faults:
        fields = {"file": printable(fault.place.path), "line": str(fault.place.line or "")}
        fields["title"] = f"{result.id} {result.check.title()}"
        properties = ",".join(
            f"{key}={_escaped(value, ':,')}" for key, value in fields.items() if value
        )
        lines.append(f"::error {properties}::{_escaped(printable(fault.message))}")
    reasons = [f"{', '.join(ids)} not run: {why}" for why, ids in _by_why(report, NOT_RUN).items()]
    lines += [f"::notice::{_escaped(printable(note))}" for note in [*report.notes, *reasons]]
    return "\n".join([*lines, summary(report)]) + "\n"


def _escaped(text: str, more: str = "") -> str:
    for character in f"%\r\n{more}":
        text = text.replace(character, f"%{ord(character):02X}")
    return text
