"""Where exo has a model's files."""

import os
from pathlib import Path
from typing import Any

from exo.inference.shard import Shard

from ...cards import Model
from ...contract import Layers
from ...engine.thread import in_thread
from ...repository.facts import RepositoryError
from ...repository.files import downloads_folder, fetch, find_tokenizer

EXOS = (".json", ".safetensors")  # what exo's downloader finds by itself


class ShardFiles:
    """The repository that exo's cards name for a model, through exo's downloader.

    Raises LookupError where exo has no such model for this engine.
    """

    def __init__(self, shard: Shard, engine_class: Any, downloader: Any) -> None:
        from exo.models import get_repo

        name = engine_class.__name__
        repository = get_repo(shard.model_id, name)
        if repository is None:
            raise LookupError(f"exo has no model {shard.model_id} for {name}")
        self._engine_class, self._downloader = name, downloader
        known = engine_class.models.by_id.get(
            shard.model_id, Model(shard.model_id, shard.model_id, "", shard.n_layers)
        )
        if not 0 <= shard.start_layer <= shard.end_layer < shard.n_layers == known.layers:
            raise LookupError(f"{shard} is no part of {shard.model_id}, of {known.layers} layers")
        self.model = known._replace(repository=repository)

    async def tokenizer(self) -> Path:
        """The folder with the tokenizer, from exo's downloads or the hub."""
        return await in_thread(lambda: find_tokenizer(self.model.repository))

    async def files(self, patterns: tuple[str, ...], layers: Layers, everything: bool) -> Path:
        """The folder of the layers' files (exo/download/new_shard_download.py).

        exo fetches the files of the layers alone. The last layers of a model with tied weights need
        the embedding too, which lies with the first ones: everything asks for those as well.
        """
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "TRUE", "YES"}:
            # exo's downloader would ask the hub all the same, for minutes.
            folder = downloads_folder(self.model.repository)
            if not (folder / "config.json").is_file():
                raise LookupError(f"HF_HUB_OFFLINE is set, and {folder} has no model: put it there")
            return folder
        if not all(pattern.endswith(EXOS) for pattern in patterns):
            return await in_thread(lambda: fetched(self.model.repository, patterns))
        ranges = [(layers.first, layers.last)]
        if everything:
            ranges = [(0, 0), (layers.total - 1, layers.total - 1)]
        for first, last in ranges:
            shard = Shard(layers.model, first, last, layers.total)
            folder = Path(await self._downloader.ensure_shard(shard, self._engine_class))
        return folder


def fetched(repository: str, patterns: tuple[str, ...]) -> Path:
    """These files alone, where exo keeps a repository's. Raises RepositoryError.

    exo's downloader takes every file of a repository without an index of safetensors, and where a
    model was exported at eight precisions that is all of them.
    """
    folder = downloads_folder(repository)
    try:
        return fetch(repository, (*patterns, "*.jinja"), folder)
    except RepositoryError as error:
        raise RepositoryError(
            f"there is no {' '.join(patterns)} of {repository} here, and {error}; put them into "
            f"{folder}"
        ) from error
