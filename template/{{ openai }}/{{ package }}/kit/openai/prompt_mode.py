"""How the server's model is spoken to: in ids where both mean the same by them, else in text."""

import logging
from contextlib import aclosing
from dataclasses import dataclass, field

from ..server.client import Refused, ServerError
from ..server.events import BrokenOffError, Event
from ..text.tokenizer import Tokenizer
from .dialect import Dialect, ServerRequest
from .refusal import KEY
from .settings import named

# Words, blanks, digits, code, scripts, a character of several tokens: fine-tunes and other builds
# of one model's vocabulary differ in some of these.
PROBES = (
    "Hello there, how are you?  Well.",
    "x = [1, 22, 333]\n\n\tif x != 4096: return f'{x}'",
    "日本語, Привет, नमस्ते, שלום 🙂",
)
ANSWER_TOKENS = 24  # of an answer by which vocabularies are compared

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PromptMode:
    """kind: "ids", "text" or "chat"; why: in words. bos: what the server puts before a text."""

    kind: str
    why: str
    fields: Event = field(default_factory=dict)
    bos: str = ""


async def find_prompt_mode(
    dialect: Dialect, model: str, tokenizer: Tokenizer, setting: str = "auto"
) -> PromptMode:
    """Ids where the server gives them and its vocabulary is the card's; raw text; chat.

    setting: the user's word. Raises ServerError.
    """
    why = "it gives no ids"
    if setting in ("auto", "ids") and dialect.id_fields:
        probe = _Probe(dialect, model, tokenizer)
        why = "" if setting == "ids" else await probe.difference()
        if not why:
            fields = await probe.fields()
            if fields is not None:
                return PromptMode("ids", "their vocabularies agree", fields)
            why = "it gave no ids when it was asked for them"
        else:
            _log.warning("%s is spoken to in text: %s", model, why)
    if setting == "ids":
        raise ServerError(f"{named('PROMPT_MODE')} is ids, but {why}")
    if setting != "chat":
        mode = await _text(dialect, model, tokenizer, why)
        if mode or setting == "text":
            return mode or PromptMode("text", why)
    return PromptMode("chat", why if setting == "auto" else f"{named('PROMPT_MODE')} says so")


class _Probe:
    """Compares the server's vocabulary with the card's."""

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
        fields = await self.fields()
        for probe in PROBES[:2] if fields is not None else ():
            request, text, ids = self._request(probe), "", list[int]()
            async with aclosing(self._dialect.text(request, in_ids=True)) as pieces:
                async for piece in pieces:
                    text += piece.text
            async with aclosing(self._dialect.ids(request, fields or {})) as pieces:
                async for piece in pieces:
                    ids.extend(piece.ids)
            decoded = self._tokenizer.fast.decode(ids, skip_special_tokens=True)
            if not ids or decoded.strip() != text.strip():
                return "an answer in ids is not what the same answer is in text"
        return "" if fields is not None else "it can't be asked about its tokenizer"

    async def fields(self) -> Event | None:
        """The fields by which the server really gives ids, if any."""
        for fields in self._dialect.id_fields:
            for _ in range(2):  # once more without what it refuses
                try:
                    if await self._gives_ids(fields):
                        return fields
                    break
                except (Refused, BrokenOffError) as error:
                    if error.status in (*KEY, 404):
                        raise
                    if not self._dialect.refuse(error.words, self._request("Hi", 2)):
                        break
        return None

    async def _gives_ids(self, fields: Event) -> bool:
        async with aclosing(self._dialect.ids(self._request("Hi", 2), fields)) as pieces:
            async for piece in pieces:
                if piece.ids:
                    return True
        return False

    def _request(self, probe: str, limit: int = ANSWER_TOKENS) -> ServerRequest:
        ids, ends = tuple(self._tokenizer.encode(probe)), tuple(self._tokenizer.eos_token_ids)
        return ServerRequest(self._model, probe, ids, limit, end_ids=ends)


async def _text(dialect: Dialect, model: str, tokenizer: Tokenizer, why: str) -> PromptMode | None:
    """Raw text, where the server takes a prompt as it is: marks as marks, in no other template.

    Its count of tokens tells: one more is a BOS of its own, more are another template, or marks
    that it reads as plain text.
    """
    probe = f"Hi{tokenizer.decode([tokenizer.eos_token_id])}Hi"
    try:
        count = await dialect.token_count(model, probe)
    except Refused as error:
        if error.status in KEY or error.status >= 500:
            raise
        return None
    more = 0 if count is None else count - len(tokenizer.encode(probe))
    if more not in (0, 1):
        return None
    bos = tokenizer.special_tokens.get("bos_token", "") if more else ""
    return PromptMode("text", why, bos=bos)
