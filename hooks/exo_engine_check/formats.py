"""A report as text for people, and as JSON and GitHub annotations."""

import json

from .checks import all_checks
from .findings import CANNOT, FAILED, NOT_RUN, PASSED, README, Report, manual, printable, title


def write(report: Report, form: str) -> str:
    """A report in one of the forms."""
    return {"text": as_text, "json": as_json, "github": as_github}[form](report)


def summary(report: Report) -> str:
    """One line: how many faults, and what became of the checks."""
    count = len(report.faults)
    faults = f"{count} fault{'' if count == 1 else 's'}" if count else "no fault"
    passed = len(report.with_state(PASSED))
    parts = [faults, f"{passed} check{'' if passed == 1 else 's'} passed"]
    for state in (CANNOT, NOT_RUN):
        parts += [f"{missing} {state}"] if (missing := len(report.with_state(state))) else []
    parts += [f"{len(report.ignored)} ignored"] if report.ignored else []
    return ", ".join(parts)


def url(name: str) -> str:
    return f"{README}#{name}"


def as_text(report: Report) -> str:
    """What a person reads."""
    checks, lines = all_checks(), list[str]()
    for result in [result for result in report.results if result.findings]:
        state = "" if result.state == FAILED else f" ({result.state})"
        lines.append(f"{result.id} {title(checks[result.id])}{state}")
        for finding in result.findings:
            place = f"{printable(finding.place)}: " if finding.place.path else ""
            lines.append(f"  {place}{printable(finding.message)}")
        lines += [f"    {line}" for line in manual(checks[result.id]).splitlines()]
        lines += [f"    alone: {report.again} --select {result.id}", f"    {url(result.id)}", ""]
    for state in (CANNOT, NOT_RUN):
        for why, names in _by_why(report, state).items():
            lines.append(f"{', '.join(names)} {state}: {printable(why)}")
    for name, reason in report.ignored.items():
        lines.append(f"{name} ignored: {printable(reason) or 'no reason given'}")
    lines += [f"note: {printable(note)}" for note in report.notes]
    return "\n".join([*lines, summary(report)]) + "\n"


def _by_why(report: Report, state: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for result in report.with_state(state):
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
        "why": {r.id: printable(r.why) for r in report.results if r.why},
        "ignored": report.ignored,
        "capabilities": report.can,
        "cannot": report.cannot,
        "passed": len(report.with_state(PASSED)),
        "notes": [printable(note) for note in report.notes],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def as_github(report: Report) -> str:
    """Annotations of a GitHub workflow, one a fault, and the summary."""
    checks, lines = all_checks(), list[str]()
    for name, finding in report.faults:
        fields = {"file": finding.place.path, "line": str(finding.place.line or "")}
        fields["title"] = f"{name} {title(checks[name])}"
        given = ",".join(f"{key}={_escaped(value, ':,')}" for key, value in fields.items() if value)
        lines.append(f"::error {given}::{_escaped(printable(finding.message))}")
    lines += [f"::notice::{_escaped(printable(note))}" for note in report.notes]
    return "\n".join([*lines, summary(report)]) + "\n"


def _escaped(text: str, more: str = "") -> str:
    for character in f"%\r\n{more}":
        text = text.replace(character, f"%{ord(character):02X}")
    return text
