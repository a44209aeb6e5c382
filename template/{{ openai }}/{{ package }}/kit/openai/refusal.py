"""What a server's refusal means, and what to do about it."""

import re
import time

from ..contract import RequestError
from ..server.client import Refused, ServerError
from .settings import Settings, named

KEY, BUSY = (401, 403), (429, 503)
FIRST_WAIT, MOST_WAIT = 0.5, 10.0  # seconds, where the server names none
_CONTEXT = re.compile(
    r"(?:context length is|context size \(|max_model_len\D{0,9}|max_seq_len\D{0,9})\s*\(?(\d{2,9})"
)


class Patience:
    """How long to wait before a busy server is asked again, within a bound."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._next = FIRST_WAIT

    def wait(self, error: Refused) -> float | None:
        """Seconds; None where it isn't busy, or the time would be over."""
        if error.status not in BUSY:
            return None
        seconds = error.wait
        if seconds is None:
            seconds, self._next = self._next, min(2 * self._next, MOST_WAIT)
        return seconds if time.monotonic() + seconds <= self._until else None


def advised(error: Refused, settings: Settings) -> ServerError | RequestError:
    """The sentence that says what to do. A request that is at fault itself is a RequestError."""
    if error.status in KEY:
        key = "" if settings.key else ", and none is set"
        file = f"{named('API_KEY')} or {named('API_KEY_FILE')}"
        return ServerError(f"{error}. It is about the key{key}: see {file}")
    if error.status == 404:
        advice = f"Set {named('MODEL')} to one of its models, or {named('KIND')} to what it is"
        return ServerError(f"{error}. {advice}")
    if error.status == 429:
        advice = f"It stayed busy; {named('BUSY_SECONDS')} waits longer. Send the request again"
        return RequestError(f"{error}. {advice}")
    if error.status == 503:
        advice = f"It loads its model, or is overloaded; {named('LOAD_SECONDS')} waits longer"
        return ServerError(f"{error}. {advice}")
    if error.status in (400, 413, 422):
        advice = f"Where it names a field: {named('KIND')}=openai sends none but OpenAI's"
        return RequestError(f"{error}. {advice}")
    return error


def context_in(error: Refused) -> int | None:
    """The context that a server names when prompt and limit are more than that."""
    found = _CONTEXT.search(error.said) if error.status == 400 else None
    return int(found[1]) if found else None
