"""How the server's model is spoken to: in ids where both mean the same by them, else in text."""

import logging
from contextlib import aclosing
from dataclasses import dataclass, field

from ..server.client import Refused, ServerError
from ..server.events import Event
from ..text.tokenizer import Tokenizer
from .dialect import Dialect, Question
from .refusal import KEY
from .settings import named

# Words, blanks, digits, code, scripts, a character of several tokens: fine-tunes and other builds
# of one model's vocabulary differ in some of these.
PROBES = (
    "Hello there, how are you?  Well.",
    "x = [1, 22, 333]\n\n\tif x != 4096: return f'{x}'",
    "日本語, Привет, नमस्ते, שלום 🙂",
)
SAID_TOKENS = 24  # of an answer by which vocabularies are compared

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PromptMode:
    """kind: "ids", "text" or "chat"; why: in words. bos: what the server puts before a text."""

    kind: str
    why: str
    way: Event = field(default_factory=dict)
    bos: str = ""


async def find_prompt_mode(
    dialect: Dialect, model: str, tokenizer: Tokenizer, wanted: str = "auto"
) -> PromptMode:
    """Ids where the server gives them and its vocabulary is the card's; raw text; chat.

    wanted: the user's word. Raises ServerError.
    """
    why = "it gives no ids"
    if wanted in ("auto", "ids") and dialect.ways:
        ask = _Ask(dialect, model, tokenizer)
        why = "" if wanted == "ids" else await ask.difference()
        if not why:
            way = await ask.way()
            if way is not None:
                return PromptMode("ids", "their vocabularies agree", way)
            why = "it gave no ids when it was asked for them"
        else:
            _log.warning("%s is spoken to in text: %s", model, why)
    if wanted == "ids":
        raise ServerError(f"{named('PROMPT_MODE')} is ids, but {why}")
    if wanted != "chat":
        found = await _text(dialect, model, tokenizer, why)
        if found or wanted == "text":
            return found or PromptMode("text", why)
    return PromptMode("chat", why if wanted == "auto" else f"{named('PROMPT_MODE')} says so")


class _Ask:
    """What a server is asked, to compare vocabularies."""

    def __init__(self, dialect: Dialect, model: str, tokenizer: Tokenizer) -> None:
        self._dialect, self._model, self._tokenizer = dialect, model, tokenizer
        self._end = tokenizer.decode([tokenizer.eos_token_id])

    async def difference(self) -> str:
        """Where the server's vocabulary differs from the card's; empty where it doesn't."""
        for probe in (*PROBES, f"a{self._end}b"):
            theirs = await self._dialect.tokenize(self._model, probe)
            if theirs is None:
                return await self._difference_in_answers()
            if theirs != self._tokenizer.encode(probe):
                return f"the server's tokenizer is not that of the card: {probe!r} has other ids"
        return ""

    async def _difference_in_answers(self) -> str:
        """Where nobody tells ids of a text: the same answer in ids and in text has to be one."""
        way = await self.way()
        for probe in PROBES[:2] if way is not None else ():
            question, text, ids = self._question(probe), "", list[int]()
            async with aclosing(self._dialect.text(question, in_ids=True)) as pieces:
                async for piece in pieces:
                    text += piece.text
            async with aclosing(self._dialect.ids(question, way or {})) as pieces:
                async for piece in pieces:
                    ids.extend(piece.ids)
            said = self._tokenizer.fast.decode(ids, skip_special_tokens=True)
            if not ids or said.strip() != text.strip():
                return "an answer in ids is not what the same answer is in text"
        return "" if way is not None else "it can't be asked about its tokenizer"

    async def way(self) -> Event | None:
        """The fields by which the server really gives ids, if any."""
        for way in self._dialect.ways:
            try:
                async with aclosing(self._dialect.ids(self._question("Hi", 2), way)) as pieces:
                    async for piece in pieces:
                        if piece.ids:
                            return way
            except Refused as error:
                if error.status in (*KEY, 404):
                    raise
        return None

    def _question(self, probe: str, limit: int = SAID_TOKENS) -> Question:
        ids = tuple(self._tokenizer.encode(probe))
        return Question(self._model, probe, ids, limit, ends=tuple(self._tokenizer.eos_token_ids))


async def _text(dialect: Dialect, model: str, tokenizer: Tokenizer, why: str) -> PromptMode | None:
    """Raw text, where the server takes a prompt as it is: marks as marks, in no other template.

    Its count of tokens tells: one more is a BOS of its own, more are another template, or marks
    that it reads as plain text.
    """
    probe = f"Hi{tokenizer.decode([tokenizer.eos_token_id])}Hi"
    try:
        count = await dialect.counted(model, probe)
    except Refused as error:
        if error.status in KEY or error.status >= 500:
            raise
        return None
    more = 0 if count is None else count - len(tokenizer.encode(probe))
    if more not in (0, 1):
        return None
    bos = tokenizer.special_tokens.get("bos_token", "") if more else ""
    return PromptMode("text", why, bos=bos)
