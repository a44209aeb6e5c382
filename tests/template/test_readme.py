"""The README says what the template does."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COPIER = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
QUESTIONS = {
    name: question
    for name, question in COPIER.items()
    if not name.startswith("_") and question.get("when", True) is not False
}


def table(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    section = README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]


def test_the_variants_table_has_every_variant() -> None:
    choices = QUESTIONS["variant"]["choices"]
    names = list(choices.values()) if isinstance(choices, dict) else choices
    assert [row[0] for row in table("Variants")] == [f"`{name}`" for name in names]


def test_ci_runs_the_readmes_test_command() -> None:
    install, test = re.search(
        r"^\$ (pip install '\.\[test\]') && (pytest.*)$", README, re.M
    ).groups()
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    commands = [step.get("run") for step in workflow["jobs"]["test"]["steps"]]
    assert install in commands
    assert test in commands
    assert f"\n        {test}\n" in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_files_that_the_readme_names_exist() -> None:
    pages = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in re.findall(r"\b(?:tests|template|hooks|docs)/[\w./-]*\w", pages):
        of_a_plugin = [*ROOT.glob(f"template/*/{name}*")]
        assert (ROOT / name).exists() or of_a_plugin, name


def test_the_readme_is_short_and_its_links_lead_to_something() -> None:
    assert len(README.encode()) <= 6000
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("https://") or (ROOT / link).exists(), link
