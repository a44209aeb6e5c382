"""A chat completion's messages, from exo's API to the node that answers."""

import logging
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from ....contract import Messages
from .. import messages
from ..node_state import NodeState
from .looks import Function
from .patch import patches

_log = logging.getLogger(__name__)


@dataclass
class Call:
    """One call of the API: the JSON of its request, and the answers that it asks for."""

    body: Any = None
    messages: Messages | None = None
    request_ids: list[str] = field(default_factory=list)


CALL: ContextVar[Call | None] = ContextVar("call", default=None)


@patches(
    "exo.api.chatgpt_api:ChatGPTAPI.__init__",
    "by what name an exo without it would hand them over is not known",
)
def hand_messages_over(original: Function, engine_class: Any) -> Function:
    """An engine gets the prompt alone, from which no message can be told (chatgpt_api.py:375)."""

    def __init__(self: Any, *args: Any, **named: Any) -> None:
        original(self, *args, **named)
        before = getattr(self, "on_chat_completion_request", None)

        def on_chat_completion_request(request_id: str, chat_request: Any, prompt: str) -> None:
            call = CALL.get()
            if call is not None and call.body is not None:
                try:
                    call.messages = messages.as_sent(chat_request, call.body)
                except Exception:  # exo would swallow it
                    _log.exception("the messages of a request can't be handed over")
            if before is not None:
                before(request_id, chat_request, prompt)

        self.on_chat_completion_request = on_chat_completion_request

    return __init__


async def hand_over(state: NodeState, request_id: str, base_shard: Any) -> None:
    """Before a prompt starts: what the node that answers gets besides it. Raises AnswerError."""
    if not state.exo_engine.engine.executor.answers:
        return
    call = CALL.get()
    if call is not None and call.messages is not None:
        await state.hand_over(request_id, call.messages)
    elif call is None and base_shard.end_layer == 0:  # `exo run`: all layers, as exo writes it
        with suppress(Exception):  # the step to that node fails by itself
            await state.hand_over(request_id, None)
