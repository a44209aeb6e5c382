"""A server as it was found: which kind it is, its name of the model, how it is spoken to."""

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from ..cards import Model
from ..contract import Messages, Piece, Request, RequestError
from ..server.address import clean
from ..server.client import Client, Refused
from ..server.models import Served
from ..text.tokenizer import Tokenizer
from .dialect import Dialect, ServerRequest
from .probe import probe
from .prompt_mode import PromptMode, find_prompt_mode
from .refusal import advised
from .settings import Settings

Choose = Callable[[Model, Sequence[str], Settings], str]

_log = logging.getLogger(__name__)


@dataclass
class Connection:
    """limit: the most tokens of prompt and answer that a refusal of the server's has named."""

    settings: Settings
    server: Dialect
    model: Served
    mode: PromptMode
    tokenizer: Tokenizer
    limit: int | None = None
    _warned: bool = False

    def same(self, other: "Connection") -> bool:
        """Whether another was found to be this one."""
        mine, its = (
            (type(c.server), c.model.name, c.model.context, c.mode.kind) for c in (self, other)
        )
        return mine == its

    def request(self, request: Request, messages: Messages, most: int | None) -> ServerRequest:
        """What the server is sent for a request of the host's. Raises RequestError.

        most: of the answer's tokens, where it has refused more.
        """
        limit = self._limit(request)
        return ServerRequest(
            self.model.name,
            request.prompt.removeprefix(self.mode.bos),
            request.ids,
            limit if most is None else min(limit, most),
            request.sampling,
            tuple(sorted(self.tokenizer.eos_token_ids)),
            messages,
            request.tools,
            request.thinking,
        )

    def _limit(self, request: Request) -> int:
        """The host's limit, or what the server's context leaves after the prompt."""
        most, length = request.max_tokens, len(request.ids)
        if self.limit is not None and self.limit > length + 1:
            most = min(most, self.limit - length - 1)
        if self.model.context is None:
            return most
        left = self.model.context - length
        if left < 1:
            raise RequestError(
                f"the prompt has {length} tokens, and the server's model takes "
                f"{self.model.context} with the answer's. Send fewer, or start the server with "
                "a longer context"
            )
        return min(most, left)

    def kind(self, request: ServerRequest) -> str:
        """How a request is spoken: as the mode says, but tools are known to chats alone."""
        return "chat" if request.tools else self.mode.kind

    def say_what_is_missing(self, request: ServerRequest) -> None:
        """Warn once where logprobs are wanted, and none come the way the server is spoken to."""
        if request.sampling.logprobs is None or self._warned:
            return
        if self.kind(request) != "ids" or not self.server.logprob_fields(1):
            self._warned = True
            _log.warning("%s: no logprobs come with %s", self.server.name, self.kind(request))

    def stream(self, request: ServerRequest) -> AsyncGenerator[Piece, None]:
        """The server's pieces."""
        kind = self.kind(request)
        if kind == "chat":
            return self.server.chat(request)
        if kind == "ids":
            return self.server.ids(request, self.mode.fields)
        return self.server.text(request)


async def connect(
    client: Client, settings: Settings, model: Model, tokenizer: Tokenizer, choose: Choose
) -> Connection:
    """Find the server's model for this one, and how it is spoken to. Raises ServerError."""
    server = await probe(client, settings, settings.load_seconds)
    try:
        models = {m.name: m for m in await server.models()}
        served = models[choose(model, list(models), settings)]
        mode = await find_prompt_mode(server, served.name, tokenizer, settings.prompt_mode)
    except Refused as error:
        raise advised(error, settings, server.name) from error
    _log.info("%s: %s, in %s", server.name, clean(served.name), mode.kind)
    return Connection(settings, server, served, mode, tokenizer)
