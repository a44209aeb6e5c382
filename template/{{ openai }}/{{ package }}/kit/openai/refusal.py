"""What a server's refusal means, and what to do about it."""

import re
import time

from ..contract import RequestError
from ..server.client import Refused, ServerError
from .settings import Settings, named

KEY, BUSY, WRONG, PROXY = (401, 403), (429, 503), (400, 413, 422), (502, 504)
FIRST_WAIT, MOST_WAIT = 0.5, 10.0  # seconds, where the server names none
GUESS = 1024  # tokens of an answer, where a server only says that they are too many

# A refusal is about a limit where it has a word of each, whichever server's sentence it is.
_OF_WHAT = re.compile(r"context|length|seq_len|token|window", re.IGNORECASE)
_TOO_MUCH = re.compile(
    r"at most|exceed|greater|larger|less than|limit|longer|max|must be|<=|≤|over|reduce|too",
    re.IGNORECASE,
)
_OF_ANSWER = re.compile(r"completion|generat|max_new_tokens|max_tokens|output", re.IGNORECASE)
# Lengths of something else: fewer tokens help against none of them.
_OF_OTHER = re.compile(
    r"\b(array|bytes|characters?|elements?|entries|items?|string)\b", re.IGNORECASE
)
_OF_TOKENS = re.compile(r"token|context|window|seq_len", re.IGNORECASE)
_STATUS = re.compile(r"<\d{3}>|\b(?:code|status)\W{0,4}\d{3}\b", re.IGNORECASE)
_SAMPLING = re.compile(r"min_p|penalty|seed|temperature|top_[kp]|top_logprobs")
# Numbers that stand alone: those within a name, such as a model's, say nothing of tokens.
_NUMBER = re.compile(r"(?<![\w.\-/])(\d[\d,_]{0,14})(?![\w\-]|\.\d)")


class Patience:
    """How long to wait before a busy server is asked again, within a bound."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._next = FIRST_WAIT

    def wait(self, error: ServerError) -> float | None:
        """Seconds; None where it isn't busy, or the time would be over."""
        if not isinstance(error, Refused) or error.status not in BUSY:
            return None
        seconds = error.wait
        if seconds is None:
            seconds, self._next = self._next, min(2 * self._next, MOST_WAIT)
        return seconds if time.monotonic() + seconds <= self._until else None


def advised(error: Refused, settings: Settings, kind: str = "") -> ServerError | RequestError:
    """The sentence that says what to do, and not what is done already; kind: of the server.

    A request that is at fault itself is a RequestError.
    """
    if error.status in KEY:
        key = "" if settings.key else ", and none is set"
        file = f"{named('API_KEY')} or {named('API_KEY_FILE')}"
        return ServerError(f"{error}. It is about the key{key}: see {file}")
    if error.status == 404:
        model, kind = named("MODEL"), named("KIND")
        is_set = f"Correct {model}, which is {settings.model!r}"
        advice = is_set if settings.model else f"Set {model} to one of its models"
        correct = f"correct {kind}, which is {settings.kind!r}"
        other = f"set {kind} to what it is" if settings.kind == "auto" else correct
        return ServerError(f"{error}. {advice}, or {other}")
    if error.status == 429:
        advice = f"It stayed busy; a larger {named('BUSY_SECONDS')} waits longer. Send it again"
        return RequestError(f"{error}. {advice}")
    if error.status == 503:
        advice = "It loads its model, or is overloaded"
        return ServerError(f"{error}. {advice}; a larger {named('LOAD_SECONDS')} waits longer")
    if error.status in PROXY:
        return ServerError(f"{error}. What answers does not reach the server: see whether it runs")
    if error.status in WRONG:
        plain = kind == "openai" or settings.kind == "openai"
        advice = f"Where it names a field: {named('KIND')}=openai sends none but OpenAI's"
        return RequestError(str(error) if plain else f"{error}. {advice}")
    return error


def limit_in(words: str, prompt: int, answer: int) -> tuple[int, int] | None:
    """What a refusal says of its limit: the most tokens of prompt and answer, and the prompt's.

    prompt, answer: the tokens that it was asked for. It may name them beside its limit, in any
    order, and count the prompt otherwise. None where the refusal is about another thing.
    """
    if not (_OF_WHAT.search(words) and _TOO_MUCH.search(words)):
        return None
    if _OF_OTHER.search(words) and not _OF_TOKENS.search(words):
        return None
    words = _STATUS.sub(" ", words)
    numbers = {int(re.sub(r"\D", "", n)) for n in _NUMBER.findall(words)} - {0, answer}
    # A sum that is named tells the server's own count of the prompt.
    own = next((n for n in numbers if n + answer in numbers), prompt)
    limits = [n for n in numbers if 1 < n < own + answer and not _near(n, own)]
    limits = [n for n in limits if not _near(n, own + answer)] or limits
    if not limits:
        guess = answer > GUESS and not _SAMPLING.search(words)
        return (GUESS, 0) if guess else None
    most = max(limits)
    # What the prompt leaves of the context may be named too: of the two the prompt is the nearer.
    halves = [n for n in numbers if n < most and most - n in numbers]
    if halves:
        own = min(halves, key=lambda n: abs(n - prompt))
    else:
        own = max([own, *(n for n in numbers if n < most)])
    if most > own + 1:
        return most, own
    return (most, 0) if most < answer and _OF_ANSWER.search(words) else None


def _near(number: int, other: int) -> bool:
    """Whether two counts are of one text, by two tokenizers or templates."""
    return abs(number - other) <= other // 20 + 4
