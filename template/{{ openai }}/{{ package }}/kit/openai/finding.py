"""What a server's models are to this plugin's cards."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ...models import TABLE
from ..core.models import Model
from ..core.tokenizer import Tokenizer, TokenizerError, downloads_folder
from ..core.worker import in_thread
from ..server.client import ServerError
from ..server.models import Served
from .dialect import Dialect
from .settings import Settings
from .speech import find_speech

Choose = Callable[[Model, Sequence[str], Settings], str]


async def cards_of(
    server: Dialect, models: Sequence[Served], choose: Choose, settings: Settings
) -> list[str]:
    """For each card that a model fits and whose tokenizer is here: how it is spoken to.

    Raises ServerError where the setting names no model of the server's.
    """
    found, names = list[str](), [m.name for m in models]
    if settings.model:
        choose(TABLE[0], names, settings)
    for model in TABLE:
        with suppress(ServerError, TokenizerError):
            name = choose(model, names, settings)
            folder = here(model.repository)
            if folder is None:
                continue
            tokenizer = await in_thread(partial(Tokenizer.from_folder, folder))
            speech = await find_speech(server, name, tokenizer, settings.speech)
            found.append(f"{model.id} in {speech.kind} ({speech.why})")
            if settings.model:
                break  # it is said to be every card's
    return found or [f"speaks {'ids or text' if server.ways else 'text or chat'}"]


def here(repository: str) -> Path | None:
    """The folder with a repository's tokenizer, where it is on this machine."""
    from huggingface_hub import try_to_load_from_cache

    local = downloads_folder(repository)
    if (local / "tokenizer.json").is_file():
        return local
    cached: Any = try_to_load_from_cache(repository, "tokenizer.json")
    return Path(cached).parent if isinstance(cached, str) else None
