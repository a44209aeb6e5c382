"""The models, and whether a server is named."""

import os

MODELS = {"whole-answers": {"layers": 24, "repo": {"AnswersInferenceEngine": "organization/whole"}}}


def detect_device() -> str | None:
    """A server by its address."""
    return "answers" if os.environ.get("ANSWERS_PORT") else None
