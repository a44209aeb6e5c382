"""Ids to text as they come, and the texts that end an answer."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from .marks import overlap

_HALF = "\ufffd"  # what a decoder makes of a character that is not whole
_LONGEST = 4  # bytes of a character, and so the most ids
CONTEXT = 16  # ids that stay in front of new ones: decoders treat a text's first ones differently
MOST_CONTEXT = 64  # where none of them may be left out
MOST_HELD = 256  # bytes of a run that are held back


class Detokenizer:
    """Text from ids as they come; all of it together is what decoding all ids gives.

    Incremental detokenizing as vLLM and TGI do it: new ids are decoded behind a few of the last
    ones, and what that adds is new. Held back is what later ids may change: a character that is not
    whole, a run of byte tokens, which decoders take for bytes of UTF-8 or not as one, and the
    beginning of a text that the decoder replaces. The work an id is bounded.

    decode: ids to text. is_byte: whether an id is a byte token. replaced: texts of several
    characters that the decoder replaces wherever they are.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        is_byte: Callable[[int], bool] = lambda _: False,
        replaced: Sequence[str] = (),
    ) -> None:
        self._decode, self._is_byte, self._replaced = decode, is_byte, replaced
        self._ids: list[int] = []
        self._output = ""  # of these ids' text
        self._new = 0  # ids at the end, of which nothing was shown
        self._run = 0  # byte tokens at the end

    @classmethod
    def of(cls, tokenizer: Any) -> "Detokenizer":
        """For a tokenizer of this plugin or of transformers."""
        return cls(tokenizer.decode, byte_tokens(tokenizer), replaced_texts(tokenizer))

    def feed(self, ids: Sequence[int]) -> str:
        """What can be shown after these ids."""
        for token in ids:
            self._run = self._run + 1 if self._is_byte(token) else 0
        self._ids += ids
        self._new += len(ids)
        if self._run > MOST_HELD:
            return self._flush()
        if self._new <= self._run:
            return ""
        end = len(self._ids) - self._run
        text = self._decode(self._ids[:end])
        whole = self._whole(text)
        output = self._show(text, whole)
        if output:  # half a character behind it has less ids than a whole one
            half = min(self._new - self._run, _LONGEST - 1) if whole < len(text) else 0
            self._new = self._run + half
        if len(self._ids) > CONTEXT + self._run:
            self._shorten(text, self._ids[end:])
        return output

    def _show(self, text: str, end: int) -> str:
        """What is new of a text up to its end."""
        new, self._output = text[len(self._output) : end], text[: max(end, len(self._output))]
        return new

    def _whole(self, text: str) -> int:
        """Where the text ends that later ids can't change.

        A decoder gives a mark for each byte, or one for several, until the character is whole.
        """
        half = len(text) - len(text.rstrip(_HALF))
        end = len(text) - (half if self._new <= _LONGEST else min(half, _LONGEST - 1))
        return end - overlap(text[:end], self._replaced)

    def _shorten(self, text: str, run: list[int]) -> None:
        """Let go of ids in front, where those behind them give the same text without them.

        Where the first cut is in the middle of a character, one of the next is before it.
        """
        ids = self._ids[: len(self._ids) - len(run)]
        for count in range(CONTEXT // 2, CONTEXT // 2 + _LONGEST):
            end = self._decode(ids[-count:])
            if (end.strip() and text.endswith(end)) or len(ids) > MOST_CONTEXT:
                hidden = len(text) - len(self._output)
                self._ids = ids[-count:] + run
                self._output = end[: max(len(end) - hidden, 0)]
                return

    def _flush(self) -> str:
        """Show a run of bytes that is too long, up to its last whole character."""
        for half in range(_LONGEST):
            text = self._decode(self._ids[: len(self._ids) - half])
            if not text.endswith(_HALF):
                break
        else:
            half = 0
        output = self._show(text, len(text))
        self._ids = self._ids[len(self._ids) - half :]
        self._output, self._new, self._run = "", half, half
        return output

    def rest(self, cut: bool = False) -> str:
        """What is left at the end; cut: a limit ended it, and half a character is left out."""
        if not self._new:
            return ""
        text = self._decode(self._ids)
        for _ in range(_LONGEST - 1):
            if not cut or not text.endswith(_HALF):
                break
            self._ids.pop()
            text = self._decode(self._ids)
        return self._show(text.rstrip(_HALF) if cut else text, len(text))


def byte_tokens(tokenizer: Any) -> Callable[[int], bool]:
    """Whether an id is a token of SentencePiece's byte fallback, "<0x00>" to "<0xFF>"."""
    fast = _fast(tokenizer)
    if fast is None:
        return lambda _: False
    return {fast.token_to_id(f"<0x{byte:02X}>") for byte in range(256)}.__contains__


def replaced_texts(tokenizer: Any) -> list[str]:
    """What the decoder replaces in the whole text and not in each token's: behind Fuse."""
    decoder = getattr(_fast(tokenizer), "decoder", None)
    steps = json.loads(decoder.__getstate__()).get("decoders", []) if decoder else []
    types = [step["type"] for step in steps]
    behind = steps[types.index("Fuse") :] if "Fuse" in types else []
    texts = [step.get("pattern", {}).get("String", "") for step in behind]
    return [text for text in texts if len(text) > 1]


def _fast(tokenizer: Any) -> Any:
    return getattr(tokenizer, "fast", None) or getattr(tokenizer, "backend_tokenizer", None)


class StopTexts:
    """Holds back what may be the beginning of a text that ends the answer."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = [text for text in stop if text]
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """What can be shown; nothing from the first stop text on."""
        if self.found or not self._stop:
            return "" if self.found else text
        self._held += text
        places = [self._held.find(stop) for stop in self._stop]
        if ends := [place for place in places if place >= 0]:
            self.found = True
            output, self._held = self._held[: min(ends)], ""
            return output
        keep = overlap(self._held, self._stop)
        output = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return output

    def rest(self) -> str:
        """What was held back, when no stop text came of it."""
        held, self._held = self._held, ""
        return held
