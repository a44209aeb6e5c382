"""Answers of exo 0.3's API that are not streamed, and fail: exo has sent status 200 by then."""

import json
import logging
from collections.abc import AsyncIterator, Collection
from contextvars import ContextVar
from importlib import import_module
from typing import Any

GONE = "the answer ended before it began, with its model's instance: exo's log says why"
_log = logging.getLogger(__name__)


def change(packages: Collection[str]) -> None:
    """Send an answer of these packages' models with its status: its sentence where it fails.

    What is streamed, and exo's own models, stay exo's.
    """
    try:
        api: Any = import_module("exo.api.main")
        validate, make = api.API._validate_model_has_instance, api.StreamingResponse
    except (ImportError, AttributeError) as error:
        _log.info("an answer that is not streamed fails as exo has it: %s", error)
        return
    model: ContextVar[str] = ContextVar("model", default="")

    async def validated(self: Any, model_id: Any) -> Any:
        """Remember whose model a request asks for; its answer is made in the same task."""
        model.set(model_id)
        return await validate(self, model_id)

    def response(content: Any, *args: Any, **named: Any) -> Any:
        """exo's, whose status waits for the answer where it is one of ours and whole."""
        made = make(content, *args, **named)
        if made.media_type != "application/json" or model.get().partition("/")[0] not in packages:
            return made
        send_all = made.stream_response

        async def stream_response(send: Any) -> None:
            try:
                parts = [part async for part in content]
            except Exception as error:  # exo's adapters have several kinds, and one without a text
                fault = {"message": str(error) or GONE, "type": "InternalServerError", "code": 500}
                made.status_code, parts = 500, [json.dumps({"error": fault})]
            made.body_iterator = _each(parts)
            await send_all(send)

        made.stream_response = stream_response
        return made

    api.API._validate_model_has_instance, api.StreamingResponse = validated, response


async def _each(parts: list[str]) -> AsyncIterator[str]:
    for part in parts:
        yield part
