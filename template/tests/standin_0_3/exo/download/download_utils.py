"""Where a model's files are."""

import json
import os
from pathlib import Path

from exo.records import ModelId
from exo.records import RepoDownloadProgress as RepoDownloadProgress

EXO_DEFAULT_MODELS_DIR = Path(os.environ.get("EXO_DEFAULT_MODELS_DIR", "models"))
READ_ONLY = os.environ.get("EXO_MODELS_READ_ONLY_DIRS", "").split(":")


def resolve_existing_model(model_id: ModelId) -> Path | None:
    """The folder of a model that is whole: one with an index whose files are all there."""
    for folder in (*map(Path, filter(None, READ_ONLY)), EXO_DEFAULT_MODELS_DIR):
        place = folder / model_id.normalize()
        indexes = list(place.glob("*.safetensors.index.json"))
        names = [json.loads(index.read_text())["weight_map"].values() for index in indexes]
        if indexes and all((place / name).is_file() for each in names for name in each):
            return place
    return None


def build_model_path(model_id: ModelId) -> Path:
    """Where a model is, or would be downloaded to."""
    return resolve_existing_model(model_id) or EXO_DEFAULT_MODELS_DIR / model_id.normalize()
