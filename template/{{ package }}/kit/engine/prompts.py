"""Prompts to ids: bounded in length and time, one after the other, off the loop."""

from collections.abc import Callable
from typing import TypeVar

from ..contract import DeviceError, RequestError
from ..text.tokenizer import Tokenizer, TokenizerError
from .thread import WatchedThread

T = TypeVar("T")

MOST_CHARACTERS = 1 << 20  # of a prompt; tokenizing these takes a second or two
MOST_WAITING = 256  # prompts that wait for the thread
SECONDS = 30.0  # for one prompt; a tokenizer's regular expressions are its model's


class Prompts:
    """One thread, so that many long prompts take neither every core nor memory for each."""

    def __init__(self) -> None:
        self._tokenizer: Tokenizer | None = None
        self._thread = self._new_thread()
        self._waiting = 0

    def _new_thread(self) -> WatchedThread:
        text = f"the model's tokenizer takes longer than {SECONDS:.0f} s for a prompt"
        return WatchedThread("prompts", text)

    async def encode(self, tokenizer: Tokenizer, text: str) -> list[int]:
        """The ids of a prompt. Raises RequestError."""
        refuse_longer(len(text))
        return await self._run(tokenizer, lambda: tokenizer.encode_prompt(text))

    async def decode(self, tokenizer: Tokenizer, ids: list[int]) -> str:
        """The text of a prompt that came as ids. Raises RequestError."""
        refuse_longer(len(ids), "tokens")
        return await self._run(tokenizer, lambda: tokenizer.decode(ids))

    async def _run(self, tokenizer: Tokenizer, call: Callable[[], T]) -> T:
        if self._waiting >= MOST_WAITING:
            raise RequestError(f"{MOST_WAITING} prompts wait already. Send it again later")
        if self._tokenizer is not tokenizer:  # another model's may have hung
            self.stop()
            self._tokenizer, self._thread = tokenizer, self._new_thread()
        self._waiting += 1
        try:
            return await self._thread.submit(call, SECONDS)
        except (DeviceError, TokenizerError) as error:
            raise RequestError(str(error)) from None
        finally:
            self._waiting -= 1

    def stop(self) -> None:
        """End the thread after what it does."""
        self._thread.stop()
        self._tokenizer = None


def refuse_longer(length: int, what: str = "characters", most: int | None = None) -> None:
    """Refuse a prompt by its length alone, which costs nothing. Raises RequestError."""
    most = MOST_CHARACTERS if most is None else most
    if length > most:
        raise RequestError(f"the prompt is too long: {length} {what}, of {most} at most")
