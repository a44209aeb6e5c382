"""One answer of the runtime's: its ids as pieces, and what tells them from another model's."""

import re

from ..contract import Finish, Piece, Request, RequestError, Usage
from ..text.tokenizer import Tokenizer
from .abi import NORMAL, WAITING
from .runtime import RuntimeLibraryError

COMPARED = 16  # tokens whose text is compared with the tokenizer's
_PADDING = re.compile(r"\s*\[PAD\d*\]\s*")


class Generated:
    """prompt: its ids; most: tokens that it may have; reused: of the prompt, from the KV cache.

    finish: why it ended, once it has. Raises RequestError where the prompt fills the context.
    """

    def __init__(self, request: Request, tokenizer: Tokenizer, context: int) -> None:
        self.request = request
        self.prompt = request.ids or tuple(tokenizer.encode(request.prompt))
        if len(self.prompt) >= context:
            raise RequestError(
                f"the prompt has {len(self.prompt)} tokens, and the model's context is {context} "
                "with the answer's. Send fewer, or set RKLLM_CONTEXT to what it was converted for"
            )
        self.most = min(request.max_tokens, context - len(self.prompt))
        self.finish: Finish | None = None
        self.ids: list[int] = []
        self.reused = 0
        self._tokenizer = tokenizer
        self._size = tokenizer.fast.get_vocab_size(with_added_tokens=True)
        self._waiting: list[int] = []  # of half a character
        self._own_text = False  # the tokenizer's is another: the library's counts

    def feed(self, text: bytes, token: int | None, state: int) -> Piece | None:
        """Take what a callback was given. Raises RuntimeLibraryError."""
        if token is None or state not in (NORMAL, WAITING):
            return None
        if token in self._tokenizer.eos_token_ids:
            self.finish = "stop"
            return None
        if not 0 <= token < self._size:
            raise _mismatch(f"it gives the id {token}, and the vocabulary has {self._size}")
        self.ids.append(token)
        if len(self.ids) >= self.most:
            self.finish = "length"
        if state == WAITING:
            self._waiting.append(token)
            return None
        ids, self._waiting = (*self._waiting, token), []
        return self._piece(text.decode("utf-8", "replace"), ids)

    def _piece(self, text: str, ids: tuple[int, ...]) -> Piece:
        if _PADDING.fullmatch(text):
            raise _mismatch(f"it gives {text.strip()}")
        compared = len(self.ids) <= COMPARED or len(ids) > 1
        if text and compared and not self._own_text:
            mine = self._tokenizer.decode(list(ids))
            self._own_text = mine.strip() != text.strip()
        if not self._own_text:
            return Piece(ids=ids)
        return Piece(text, tuple(self._tokenizer.encode(text)))

    def end(self) -> None:
        """The run has ended by itself. Raises RequestError where nothing came."""
        if not self.ids:
            raise RequestError(
                "the model ended its answer without a word: send the prompt otherwise"
            )
        self.finish = self.finish or "stop"

    def last(self) -> Piece:
        """The last piece, with the counts."""
        usage = Usage(len(self.prompt), len(self.ids), self.reused)
        return Piece(finish=self.finish, usage=usage)


def _mismatch(why: str) -> RuntimeLibraryError:
    return RuntimeLibraryError(
        f"the model and the runtime or the tokenizer do not match: {why}. Convert the model with "
        "the toolkit of the runtime's version, and name its own repository in models.py"
    )
