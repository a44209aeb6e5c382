"""`bench`: measures the device and nothing else.

The steps of a StepBackend are timed where they are computed, on the device's thread; the answers
of an AnswerBackend as their pieces come.
"""

import argparse
import asyncio
import json
import time
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

from ..contract import Backend, Piece, Request
from ..engine.engine import Engine
from ..engine.validation import makes_answers
from ..plugin import Plugin
from .loaded_model import Session, opened
from .output import CommandError, sentence, show

RUNS, SECONDS = 5, 2.0  # where nobody says how many: this many, and more for as long as this
STEPS, IDS = "steps on the device", "ids of the server"
TEXT = "the server's text, as the model's tokenizer splits it"


@dataclass(frozen=True)
class Run:
    """One answer: the seconds to its first token, and from there to its last."""

    first: float
    rest: float
    tokens: int
    later: int  # the tokens that came in `rest`
    counted: str
    ended: str  # the error that ended it before its limit


async def run(plugin: Plugin, arguments: argparse.Namespace) -> int:
    """Print the figures, and write them where they are to go."""
    seconds: list[float] = []
    at_once: dict[str, Any] = {}
    # Nothing is taken over from the answer before: it is the same one.
    measured = partial(timed, seconds=seconds)
    async with opened(plugin, arguments, measured, reuses=False) as session:
        request = await session.request(arguments)
        runs = await _measure(session, request, seconds, arguments.runs)
        if arguments.at_once:
            at_once = await _at_once(session, request, arguments.at_once, len(runs))
    figures = {
        "model": session.name,
        "layers": session.model.layers,
        "device": await _device(session.engine),
        "prompt_tokens": len(request.ids),
        "max_tokens": request.max_tokens,
        **_summary(runs, len(request.ids)),
        **at_once,
    }
    _print(figures)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def timed(own: Backend, seconds: list[float]) -> Backend:
    """The same backend; what each of its steps takes comes into the list."""
    if makes_answers(own):
        return own
    original: Any = own

    def step(self: Any, request_id: str, x: Any) -> Any:
        start = time.perf_counter()
        output = original.step(self, request_id, x)
        seconds.append(time.perf_counter() - start)
        return output

    backend: Backend = type(original.__name__, (original,), {"step": step})
    return backend


async def _device(engine: Engine) -> str:
    """What the backend says of its device, last: many can be opened once only."""
    try:
        return await engine.executor.check()
    except Exception as error:
        return sentence(error)


async def _measure(
    session: Session, request: Request, seconds: list[float], count: int | None
) -> list[Run]:
    """The answers behind a first one, which touches memory and waits for a server at work."""
    session.progress.say("warming up")
    await _answer(session, replace(request, id="warm-up"), seconds)
    runs: list[Run] = []
    until = time.perf_counter() + (SECONDS if count is None else 0.0)
    while len(runs) < (count or RUNS) or time.perf_counter() < until:
        session.progress.say(f"measuring answer {len(runs) + 1}")
        runs.append(await _answer(session, replace(request, id=f"run-{len(runs)}"), seconds))
    return runs


async def _at_once(session: Session, request: Request, many: int, rounds: int) -> dict[str, Any]:
    """Tokens a second of one answer and of many at once, in turns; both from their beginning."""
    rates: dict[int, list[float]] = {1: [], many: []}
    for number in range(rounds):
        for users, measured in rates.items():
            session.progress.say(f"measuring {users} at once, {number + 1} of {rounds}")
            start = time.perf_counter()
            names = [f"at-once-{users}-{number}-{n}" for n in range(users)]
            tokens = await asyncio.gather(*(_count(session, request, name) for name in names))
            measured.append(sum(tokens) / (time.perf_counter() - start))
    alone, together = median(rates[1]), median(rates[many])
    rate = {"answers": many, "tokens_per_second": together, "times_one": together / alone}
    return {"at_once": rate}


async def _count(session: Session, request: Request, name: str) -> int:
    """How many tokens one answer has."""
    async with aclosing(session.engine.answer(replace(request, id=name), False)) as answer:
        pieces = [piece async for piece in answer]
    return await _tokens(session, pieces, IDS if all(p.ids for p in pieces if p.text) else TEXT)


async def _answer(session: Session, request: Request, seconds: list[float]) -> Run:
    """Time one answer to its end: what is left of one would be in the way of the next."""
    seconds.clear()
    pieces: list[Piece] = []
    times = [time.perf_counter()]
    ended = ""
    prefill = 0  # steps until the first token: a long prompt has several
    try:
        async with aclosing(session.engine.answer(request, False)) as answer:
            async for piece in answer:
                if piece.text or piece.ids:
                    prefill = prefill or len(seconds)
                    times.append(time.perf_counter())
                    pieces.append(piece)
    except ValueError as error:  # the request's fault: its context is full
        if not pieces:
            raise
        ended = sentence(error)
    if _is_short(pieces, request):
        ended = "the model's context is full"
    if steps := len(seconds):
        first, later = sum(seconds[:prefill]), steps - prefill
        return Run(first, sum(seconds[prefill:]), later + 1, later, STEPS, ended)
    if not pieces:
        raise CommandError("The model answered nothing. Give bench another --prompt.")
    counted = IDS if all(piece.ids for piece in pieces) else TEXT
    tokens = await _tokens(session, pieces, counted)
    later = tokens - await _tokens(session, pieces[:1], counted)
    return Run(times[1] - times[0], times[-1] - times[1], tokens, later, counted, ended)


def _is_short(pieces: list[Piece], request: Request) -> bool:
    """Whether another limit than the request's ended an answer."""
    tokens = sum(len(piece.ids) for piece in pieces)
    return bool(pieces) and pieces[-1].finish == "length" and 0 < tokens < request.max_tokens


async def _tokens(session: Session, pieces: list[Piece], counted: str) -> int:
    if counted == IDS:
        return sum(len(piece.ids) for piece in pieces)
    return len(await session.encode("".join(piece.text for piece in pieces)))


def _summary(runs: list[Run], length: int) -> dict[str, Any]:
    """Medians and spreads of all runs."""
    rates = [run.later / run.rest for run in runs if run.later > 0 and run.rest > 0]
    return {
        "runs": len(runs),
        "tokens": median(run.tokens for run in runs),
        "counted": runs[0].counted,
        "ended": next((run.ended for run in runs if run.ended), None),
        "first_token_seconds": _spread([run.first for run in runs]),
        "prefill_tokens_per_second": _spread([length / run.first for run in runs]),
        "decode_tokens_per_second": _spread(rates) if rates else None,
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def _print(figures: dict[str, Any]) -> None:
    first, decode = figures["first_token_seconds"]["median"], figures["decode_tokens_per_second"]
    prefill = _rate(figures["prefill_tokens_per_second"])
    line = "not measured: the answer has one token; ask something longer"
    if decode:
        line = f"{_rate(decode)}, {figures['tokens']:.0f} tokens in each of "
        line += f"{figures['runs']} answers"
    show(f"model    {figures['model']}, {figures['layers']} layers\n")
    show(f"device   {figures['device']}\n")
    show(f"prefill  {prefill}, {figures['prompt_tokens']} tokens in {first * 1e3:.1f} ms\n")
    show(f"decode   {line}\n")
    show(f"counted  {figures['counted']}\n")
    if together := figures.get("at_once"):
        show(f"at once  {together['tokens_per_second']:.1f} tokens/s of {together['answers']} ")
        show(f"answers, {together['times_one']:.2f} times one's\n")
    if figures["ended"]:
        limit = figures["max_tokens"]
        show(f"note     the answers ended before {limit} tokens: {figures['ended']}\n")


def _rate(rate: dict[str, float]) -> str:
    return f"{rate['median']:.1f} tokens/s ({rate['min']:.1f} to {rate['max']:.1f})"
