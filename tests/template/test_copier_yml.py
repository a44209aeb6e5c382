"""copier takes a misspelt setting silently, so copier.yml is linted here."""

from typing import Any

import pytest
import yaml
from conftest import REPOSITORY, questions

SETTINGS = {
    "_envops",
    "_exclude",
    "_external_data",
    "_message_after_copy",
    "_message_after_update",
    "_min_copier_version",
    "_skip_if_exists",
    "_subdirectory",
}
IDENTITY = {"project_name", "variant", "engine_name", "engine_class"}
QUESTION_KEYS = {"type", "help", "default", "validator", "choices", "when"}
CONFIG: dict[str, Any] = yaml.safe_load((REPOSITORY / "copier.yml").read_text(encoding="utf-8"))
ALL = {name: value for name, value in CONFIG.items() if not name.startswith("_")}


def test_only_known_settings() -> None:
    assert {name for name in CONFIG if name.startswith("_")} == SETTINGS


def test_nothing_needs_trust() -> None:
    assert not CONFIG.keys() & {"_tasks", "_jinja_extensions", "_migrations"}


def test_envops_and_version() -> None:
    assert CONFIG["_envops"] == {
        "undefined": "jinja2.StrictUndefined",
        "keep_trailing_newline": True,
    }
    assert CONFIG["_min_copier_version"] == "9.15.0"


def test_default_excludes_are_restated() -> None:
    # With _exclude, copier drops its own.
    assert {"__pycache__", "*.pyc", ".DS_Store", ".git"} <= set(CONFIG["_exclude"])


def test_the_questions_in_order() -> None:
    assert list(questions()) == [
        "project_name",
        "variant",
        "onnx_provider",
        "onnx_plugin",
        "engine_name",
        "engine_class",
        "description",
        "user_name",
        "user_email",
        "repository_url",
        "license",
    ]


@pytest.mark.parametrize("name", ALL)
def test_question_is_whole(name: str) -> None:
    question = ALL[name]
    assert question.keys() <= QUESTION_KEYS
    assert question["type"] == "str"
    assert question["help"].strip()
    assert isinstance(question["default"], str)
    assert question["validator"]
    if name in questions():
        assert question["default"]


@pytest.mark.parametrize("name", [name for name in ALL if "choices" in ALL[name]])
def test_default_is_a_choice(name: str) -> None:
    choices = ALL[name]["choices"]
    values = choices.values() if isinstance(choices, dict) else choices
    assert ALL[name]["default"] in values


@pytest.mark.parametrize("name", questions())
def test_validator_checks_its_own_question(name: str) -> None:
    calls = ALL[name]["validator"].rpartition("{{")[2]
    identity = f'identity_problem(_copier_conf, _external_data, "{name}", {name})'
    assert (identity in calls) == (name in IDENTITY)
    assert (identity.replace("identity", "kept", 1) in calls) == (name not in IDENTITY)
    assert f"_problem({name}" in calls or "choices" in ALL[name]
