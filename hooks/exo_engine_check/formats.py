"""A report as text for people, and as JSON, SARIF and GitHub annotations."""

import json
from collections.abc import Iterator
from typing import Any

from .checks import repo_review_checks
from .findings import README
from .run import Fault, Report

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def summary(report: Report) -> str:
    """One line: how many faults, and how many checks passed."""
    count = len(report.faults)
    faults = f"{count} fault{'' if count == 1 else 's'}" if count else "no fault"
    ignored = f", {len(report.ignored)} ignored" if report.ignored else ""
    return f"{faults}, {report.passed} checks passed{ignored}"


def as_text(report: Report) -> str:
    """One block a check: id and title, the places, then why and how to mend it."""
    return "".join(text for text, _ in _pieces(report))


def show(report: Report) -> None:
    """The same in colour, for a terminal."""
    from rich.console import Console
    from rich.text import Text

    Console(highlight=False, soft_wrap=True).print(Text.assemble(*_pieces(report)), end="")


def _pieces(report: Report) -> Iterator[tuple[str, str]]:
    """The text in pieces, each with its style."""
    for name in dict.fromkeys(fault.id for fault in report.faults):
        faults = [fault for fault in report.faults if fault.id == name]
        yield name, "bold red"
        yield f" {faults[0].title}\n", "bold"
        for fault in faults:
            place = str(fault.finding.place)
            yield "  ", ""
            yield place, "cyan"
            yield f"{': ' if place else ''}{fault.finding.message}\n", ""
        yield "".join(f"    {line}\n" for line in faults[0].manual.splitlines()), ""
        yield f"    {faults[0].url}\n\n", "dim"
    for name, reason in report.ignored.items():
        yield f"{name} ignored: {reason or 'no reason given'}\n", ""
    for note in report.notes:
        yield f"note: {note}\n", ""
    yield f"{summary(report)}\n", "bold red" if report.faults else "bold green"


def as_json(report: Report) -> str:
    """What a script reads."""
    faults = [
        {
            "id": fault.id,
            "title": fault.title,
            "path": fault.finding.place.path or None,
            "line": fault.finding.place.line or None,
            "message": fault.finding.message,
            "help": fault.manual,
            "url": fault.url,
        }
        for fault in report.faults
    ]
    content = {
        "faults": faults,
        "ignored": report.ignored,
        "passed": report.passed,
        "notes": report.notes,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def as_sarif(report: Report) -> str:
    """SARIF 2.1.0, for GitHub's code scanning and editors."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("exo-engine-template")
    except PackageNotFoundError:
        number = "0"
    rules = sorted({(f.id, f.title, f.manual, f.url) for f in report.faults})
    driver = {
        "name": "exo-engine",
        "version": number,
        "informationUri": README,
        "rules": [
            {
                "id": name,
                "shortDescription": {"text": title},
                "fullDescription": {"text": manual or title},
                "helpUri": url,
            }
            for name, title, manual, url in rules
        ],
    }
    index = {name: number for number, (name, *_) in enumerate(rules)}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_sarif_result(fault, index[fault.id]) for fault in report.faults],
    }
    content = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _sarif_result(fault: Fault, index: int) -> dict[str, Any]:
    from urllib.parse import quote

    result: dict[str, Any] = {
        "ruleId": fault.id,
        "ruleIndex": index,
        "level": "error",
        "message": {"text": fault.finding.message},
    }
    place = fault.finding.place
    if place.path:
        physical: dict[str, Any] = {"artifactLocation": {"uri": quote(place.path)}}
        if place.line:
            physical["region"] = {"startLine": place.line}
        result["locations"] = [{"physicalLocation": physical}]
    return result


def as_github(report: Report) -> str:
    """Annotations of a GitHub workflow, one a fault, and the summary."""
    lines = []
    for fault in report.faults:
        place = fault.finding.place
        fields = {"file": place.path, "line": str(place.line or "")}
        fields["title"] = f"{fault.id} {fault.title}"
        given = ",".join(f"{k}={_property(v)}" for k, v in fields.items() if v)
        lines.append(f"::error {given}::{_data(fault.finding.message)}")
    lines += [f"::notice::{_data(note)}" for note in report.notes]
    return "\n".join([*lines, summary(report)]) + "\n"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def table() -> str:
    """The README's table of checks, from the classes."""
    lines = ["| id | check | why, and how to mend it |", "| --- | --- | --- |"]
    for name, check in repo_review_checks().items():
        manual = " ".join((check.check.__doc__ or "").split()).replace("|", "\\|")
        title = (check.__doc__ or "").strip()
        lines.append(f'| <a id="{name}"></a>{name} | {title} | {manual} |')
    return "\n".join(lines) + "\n"
