"""exo's requests to the kit's, and what the kit counts to exo's records."""

import json
from collections.abc import Mapping
from typing import Any

from exo.api.types import (
    CompletionTokensDetails,
    GenerationStats,
    PromptTokensDetails,
    TopLogprobItem,
)
from exo.api.types import Usage as ExoUsage
from exo.shared.types.memory import Memory
from exo.shared.types.text_generation import TextGenerationTaskParams

from ...contract import Logprob, Messages, Request, RequestError, Sampling, Usage
from ...engine.engine import Engine
from ...engine.prompts import Prompts
from ...engine.thread import in_thread
from ...text.chat_template import TemplateError, compiled
from ...text.tokenizer import Tokenizer

MOST_TOKENS = 32_168  # where nobody says, as exo's own engine has it
TEMPERATURE = 0.7  # likewise
LIKELIEST, MOST_LIKELIEST = 5, 20  # of top_logprobs: likewise, and OpenAI's API takes no more
NO_IMAGES = "this engine takes text alone, and no images: send the request without"
PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")


async def request_of(
    task_id: str, params: TextGenerationTaskParams, engine: Engine, prompts: Prompts
) -> Request:
    """The kit's request. Raises RequestError."""
    messages = messages_of(params)
    prompt = await _prompt(messages, params, engine)
    assert engine.tokenizer is not None, "load() comes first"
    ids = await prompts.encode(engine.tokenizer, prompt)
    if not ids:
        raise RequestError("the prompt is empty")
    most = params.max_output_tokens or MOST_TOKENS
    if (context := engine.executor.context) is not None:
        most = max(1, min(most, context - len(ids)))
    stop = params.stop or ()
    return Request(
        id=task_id,
        prompt=prompt,
        ids=tuple(ids),
        max_tokens=most,
        sampling=sampling_of(params),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        messages=messages,
        tools=params.tools,
        thinking=params.enable_thinking,
    )


def messages_of(params: TextGenerationTaskParams) -> Messages:
    """The conversation as the client sent it. Raises RequestError for what is more than text."""
    entries: list[Mapping[str, Any]] = list(params.chat_template_messages or ())
    if not entries:
        if params.instructions:
            entries.append({"role": "system", "content": params.instructions})
        entries += [{"role": m.role, "content": m.content} for m in params.input if m.content]
    # exo's texts are of a class of its own, whose repr() is shortened.
    messages: Messages = json.loads(json.dumps(entries))
    for message in messages:
        if isinstance(content := message.get("content"), list):
            message["content"] = "\n".join(_text(part) for part in content)
    if params.images:
        raise RequestError(NO_IMAGES)
    return messages


def _text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or part.get("type") != "text":
        raise RequestError(NO_IMAGES)
    return str(part.get("text", ""))


async def _prompt(messages: Messages, params: TextGenerationTaskParams, engine: Engine) -> str:
    """The conversation in the model's chat template; its bare text where the model has none.

    A server writes the tools itself where the template has no place for them. Raises RequestError.
    """
    assert engine.tokenizer is not None, "load() comes first"
    template, special = engine.tokenizer.chat_template, engine.tokenizer.special_tokens
    if template is None:
        return "\n".join(str(message.get("content") or "") for message in messages)
    last = messages[-1] if messages else {}

    def render() -> str:
        made = compiled(template)
        return made.render(
            messages,
            special,
            tools=params.tools if made.takes_tools or not engine.executor.answers else None,
            enable_thinking=params.enable_thinking,
            reasoning_effort=params.reasoning_effort,
            # As exo's own engine has it: an answer that the client began goes on.
            continue_final_message=last.get("role") == "assistant" and bool(last.get("content")),
        )

    try:
        return await in_thread(render)
    except TemplateError as error:
        raise RequestError(f"the model's chat template refuses the messages: {error}") from None


def sampling_of(params: TextGenerationTaskParams) -> Sampling:
    """What departs from neutral. Where the client names no seed, each answer has its own."""
    values = {name: getattr(params, name) for name in ("top_p", "top_k", "min_p", *PENALTIES)}
    named = {name: value for name, value in values.items() if value is not None}
    temperature = TEMPERATURE if params.temperature is None else params.temperature
    likeliest = min(params.top_logprobs or LIKELIEST, MOST_LIKELIEST) if params.logprobs else None
    return Sampling(temperature=temperature, seed=params.seed, logprobs=likeliest, **named)


def top_logprobs(logprob: Logprob, tokenizer: Tokenizer) -> list[TopLogprobItem]:
    """exo's records of the likeliest tokens, the likeliest first."""
    texts = [(tokenizer.text_of(token), value) for token, value in logprob.top]
    return [
        TopLogprobItem(token=text, logprob=finite(value), bytes=list(text.encode()))
        for text, value in texts
    ]


def finite(logprob: float) -> float:
    """JSON has no infinity: what can't come has this value, as OpenAI's API has it."""
    return max(logprob, -9999.0)


def exo_usage(usage: Usage) -> ExoUsage:
    """An answer's counts of tokens."""
    return ExoUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.reused_tokens),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=usage.reasoning_tokens),
    )


def stats(usage: Usage, prefill: float, decode: float) -> GenerationStats:
    """Rates in tokens a second: to the first token, and from there to the last, in seconds."""
    computed = usage.prompt_tokens - usage.reused_tokens
    return GenerationStats(
        prompt_tps=computed / prefill if prefill > 0 else 0.0,
        generation_tps=max(usage.completion_tokens - 1, 0) / decode if decode > 0 else 0.0,
        prompt_tokens=usage.prompt_tokens,
        generation_tokens=usage.completion_tokens,
        peak_memory_usage=Memory(in_bytes=0),
    )
