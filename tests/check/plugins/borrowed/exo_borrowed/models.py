"""The models, and whether the device is here."""

from pathlib import Path

MODELS = {
    "tiny-borrowed": {"layers": 4, "repo": {"BorrowedInferenceEngine": "organization/tiny"}},
}


def detect_device() -> str | None:
    """A device by its file."""
    return "borrowed" if Path("/dev/borrowed").exists() else None
