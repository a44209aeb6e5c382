"""Every odd answer is refused with a sentence, or comes back unchanged from every file."""

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import Render

HOSTILE = {
    "quotes": """it's "quoted" `here`""",
    "backslashes": r"C:\new\table \u0041 \\",
    "newline": "one\ntwo",
    "triple quotes": "x \"\"\" y ''' z",
    "emoji": "fast 🚀 engine 漢字",
    "jinja": "{{ 7*7 }} {% raw %} {# x #}",
    "yaml": "a: b # c",
    "keyword": "class",
    "standard library": "json",
    "trailing newline": "exo-x\n",
    "spaces": "   ",
    "path": "../x",
    "very long": "x" * 5000,
    "markup": "<!-- --> ]] [x](y) <b>",
    "yaml scalar": "null",
    "number": "3.10",
    "empty": "",
    "control character": "a\x1b[31mb\x00",
    "right to left": "a\u202eb",
}
QUESTIONS = [
    "project_name",
    "engine_name",
    "engine_class",
    "description",
    "user_name",
    "user_email",
    "repository_url",
]
# Free text, which none of these may be too odd for.
FREE = ("description", "user_name")
ODD = ("quotes", "backslashes", "triple quotes", "emoji", "jinja", "yaml", "yaml scalar")
# Refusals must say what to do, and all of ours begin a sentence with one of these.
ADVICE = re.compile(r"\b(Use|Choose|Write|Remove)\b.*\.\s*$", re.DOTALL)


def parse_everything(plugin: Path) -> None:
    """Parse every file that has a grammar; raises the parser's own error."""
    for path in plugin.rglob("*"):
        if path.suffix in {".py", ".toml", ".yml", ".yaml", ".json"}:
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".py":
                ast.parse(text, filename=str(path))
            elif path.suffix == ".toml":
                tomllib.loads(text)
            elif path.suffix == ".json":
                json.loads(text)
            else:
                list(yaml.safe_load_all(text))


def answer_in_metadata(plugin: Path, question: str) -> str:
    """The answer as pyproject.toml has it."""
    project = tomllib.loads((plugin / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    engines: dict[str, str] = project["entry-points"]["exo.inference_engines"]
    [(engine_name, target)] = engines.items()
    answers: dict[str, str] = {
        "project_name": project["name"],
        "engine_name": engine_name,
        "engine_class": target.partition(":")[2],
        "description": project["description"],
        "user_name": project["authors"][0]["name"],
        "user_email": project["authors"][0].get("email", ""),
        "repository_url": project.get("urls", {}).get("Repository", ""),
    }
    return answers[question]


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_answer(render: Render, tmp_path: Path, question: str, kind: str) -> None:
    answer = HOSTILE[kind]
    refusal = ""
    try:
        plugin = render("exo-hostile", **{question: answer})
    except ValueError as error:
        refusal = str(error)
    if refusal:
        assert question not in FREE or kind not in ODD
        assert question in refusal
        assert ADVICE.search(refusal), f"no advice in: {refusal}"
        assert not (tmp_path / "exo-hostile").exists()
        return
    parse_everything(plugin)
    stored = yaml.safe_load((plugin / ".copier-answers.yml").read_text(encoding="utf-8"))
    assert stored[question] == answer
    assert answer_in_metadata(plugin, question) == answer


def test_there_may_be_no_address(render: Render) -> None:
    plugin = render("exo-hostile", user_email="", repository_url="")
    project = tomllib.loads((plugin / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["authors"] == [{"name": "Your Name"}]
    assert "urls" not in project


def test_all_odd_texts_at_once(render: Render) -> None:
    text = "".join(HOSTILE[kind] for kind in ("quotes", "backslashes", "triple quotes"))
    plugin = render("exo-hostile", description=text, user_name=text)
    parse_everything(plugin)
    assert answer_in_metadata(plugin, "description") == text
