"""What a request wants and a backend can't do: a sentence, or one warning a model."""

import logging
from dataclasses import fields

from ..contract import Request, RequestError, Sampling

_NEUTRAL = Sampling()
# An answer without them would be another. One without logprobs is the same one, and exo's dashboard
# asks for them in every request, whether anybody looks at them or not.
_REFUSED = ("tools",)

_log = logging.getLogger(__name__)


class Support:
    """The limits of one backend. unsupported: as the contract has it, None where it says nothing.

    A whole answer comes without logprobs where nothing is said.
    """

    def __init__(self, unsupported: tuple[str, ...] | None, answers: bool) -> None:
        self._unsupported = ("logprobs",) * answers if unsupported is None else unsupported
        self._warned: dict[str, set[str]] = {}  # by model

    def __str__(self) -> str:
        """What doctor says of it; nothing where all of a request counts."""
        refused = [name for name in self._unsupported if name in _REFUSED]
        unheeded = [name for name in self._unsupported if name not in _REFUSED]
        parts = [f"it refuses requests with {' or '.join(refused)}"] if refused else []
        parts += [f"of a request it does not heed {', '.join(unheeded)}"] if unheeded else []
        return "; ".join(parts)

    def check(self, request: Request, model: str) -> None:
        """Raise RequestError where the answer can't be what is wanted; warn of the rest."""
        departures = _departing(request.sampling) | ({"tools"} if request.tools else set())
        self._check(departures & set(self._unsupported), model, "this engine's backend")

    def check_sampled(self, request: Request, model: str) -> None:
        """The same for a device that gives the next id, and so samples by itself."""
        self._check(
            _departing(request.sampling), model, "the device chooses the tokens itself, and"
        )

    def _check(self, lacking: set[str], model: str, who: str) -> None:
        for name in sorted(lacking & set(_REFUSED)):
            raise RequestError(f"{who} has no {name}: send the request without")
        if news := sorted(lacking - self._warned.setdefault(model, set())):
            self._warned[model].update(news)
            _log.warning("%s: %s does not heed %s", model, who, ", ".join(news))


def _departing(sampling: Sampling) -> set[str]:
    """The names of what is not neutral."""
    names = [member.name for member in fields(sampling)]
    return {name for name in names if getattr(sampling, name) != getattr(_NEUTRAL, name)}
