"""What a server's models are to this plugin's cards."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from ...names import PACKAGE, PROJECT
from ..cards import Cards, Model
from ..engine.thread import in_thread
from ..repository.files import tokenizer_here
from ..server.client import ServerError
from ..server.models import Served, Several, listed
from ..text.tokenizer import Tokenizer, TokenizerError
from .dialect import Dialect
from .prompt_mode import find_prompt_mode
from .settings import Settings

Choose = Callable[[Model, Sequence[str], Settings], str]


async def cards_of(
    cards: Cards, server: Dialect, served: Sequence[Served], choose: Choose, settings: Settings
) -> list[str]:
    """For each card that a model fits and whose tokenizer is here: how it is spoken to.

    Raises ServerError where no model of the server's fits one, the setting names none of them, or
    a model can't be spoken to.
    """
    rows, names = list[str](), [m.name for m in served]
    fitting = _fitting(cards.table, names, choose, settings)
    for model, name in fitting.items():
        folder = tokenizer_here(model.repository)
        if folder is None:
            continue
        with suppress(TokenizerError):  # doctor has a row for it
            tokenizer = await in_thread(partial(Tokenizer.from_folder, folder))
            prompt_mode = await find_prompt_mode(server, name, tokenizer, settings.prompt_mode)
            rows.append(f"{model.id} in {prompt_mode.kind} ({prompt_mode.why})")
            if settings.model:
                break  # it is said to be every card's
    return rows or [f"speaks {'ids or text' if server.id_fields else 'text or chat'}"]


def _fitting(
    models: Sequence[Model], names: Sequence[str], choose: Choose, settings: Settings
) -> dict[Model, str]:
    """The server's name for each card that has one. Raises ServerError where none has."""
    fitting = dict[Model, str]()
    several: Several | None = None
    for model in models:
        try:
            fitting[model] = choose(model, names, settings)
        except Several as error:
            several = error
        except ServerError:
            if settings.model:  # it is said to be every card's
                raise
    if fitting:
        return fitting
    raise several or ServerError(
        f"none of the server's models is one of this plugin's: {listed(names)}. "
        f"`{PROJECT} models` prints the lines that {PACKAGE}/models.py needs for them"
    )
