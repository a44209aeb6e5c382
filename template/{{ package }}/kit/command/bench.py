"""`bench`: measures the device and nothing else.

The steps of a StepBackend are timed where they are computed, on the device's thread; an
AnswerBackend's answers are timed as their pieces come.
"""

import argparse
import json
import time
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from ..core.contract import Backend, Piece, Request, makes_answers
from ..core.runner import Runner
from ..core.worker import in_thread
from .session import Session, opened, own_backend
from .telling import CommandError, sentence, show

RUNS, SECONDS = 5, 2.0  # where nobody says how many: this many, and more for as long as this
FACTS = ("threads", "precision")  # what an instance may say of itself
COUNTED = {
    "steps": "steps on the device",
    "ids": "the server's ids",
    "text": "the model's tokenizer, of the server's text",
}


@dataclass
class Clock:
    """What the steps of one answer took."""

    seconds: list[float] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def on(self, own: Backend) -> Backend:
        """The same backend, its steps timed."""
        if makes_answers(own):
            return own
        made: Any = own

        def step(backend: Any, request_id: str, x: Any) -> Any:
            begun = time.perf_counter()
            output = made.step(backend, request_id, x)
            self.seconds.append(time.perf_counter() - begun)
            if not self.facts:
                self.facts |= {f: getattr(backend, f) for f in FACTS if hasattr(backend, f)}
            return output

        timed: Backend = type(made.__name__, (made,), {"step": step})
        return timed


@dataclass(frozen=True)
class Run:
    """One answer: seconds to its first token, and from there to its last."""

    first: float
    rest: float
    tokens: int
    later: int  # the tokens that came in `rest`
    counted: str
    ended: str  # why it ended before its limit, where that was an error


async def run(arguments: argparse.Namespace) -> int:
    """Print the figures, and write them where they are wanted."""
    checker = Runner(own_backend())
    try:
        # Before the load: many devices can be opened once only.
        device = await checker.device.check()
    finally:
        await checker.close()
    clock = Clock()
    async with opened(arguments, clock.on) as session:
        request = await session.request(arguments)
        runs = await _measure(session, request, clock, arguments.runs)
    measured = {
        "model": session.model.id,
        "layers": session.model.layers,
        "device": device,
        **{fact: str(value) for fact, value in clock.facts.items()},
        "prompt_tokens": len(request.ids),
        "max_tokens": request.max_tokens,
        **_figures(runs, len(request.ids)),
    }
    _print(measured)
    if arguments.json is not None:
        _write(arguments.json, measured)
    return 0


async def _measure(
    session: Session, request: Request, clock: Clock, wanted: int | None
) -> list[Run]:
    """The answers after the first, which touches memory, and waits for a server that is at work."""
    session.progress.say("warming up: one answer is not measured")
    await _answer(session, replace(request, id="warm-up"), clock)
    runs: list[Run] = []
    until = time.perf_counter() + (SECONDS if wanted is None else 0.0)
    while len(runs) < (wanted or RUNS) or time.perf_counter() < until:
        session.progress.say(f"measuring answer {len(runs) + 1}")
        runs.append(await _answer(session, replace(request, id=f"bench-{len(runs)}"), clock))
    session.progress.stop()
    return runs


async def _answer(session: Session, request: Request, clock: Clock) -> Run:
    """Time one answer to its end: what is left of one would be in the way of the next."""
    clock.seconds.clear()
    pieces: list[Piece] = []
    times = [time.perf_counter()]
    ended = ""
    try:
        async with aclosing(session.runner.answer(request)) as answer:
            async for piece in answer:
                if piece.text or piece.ids:
                    times.append(time.perf_counter())
                    pieces.append(piece)
    except ValueError as error:  # the request's fault: its context is full
        if not pieces:
            raise
        ended = sentence(error)
    if seconds := clock.seconds:
        steps = len(seconds)
        return Run(seconds[0], sum(seconds[1:]), steps, steps - 1, "steps", ended)
    if not pieces:
        raise CommandError("The model answered nothing. Give bench another --prompt.")
    counted = "ids" if all(piece.ids for piece in pieces) else "text"
    first = await _tokens(session, pieces[:1], counted)
    tokens = await _tokens(session, pieces, counted)
    return Run(times[1] - times[0], times[-1] - times[1], tokens, tokens - first, counted, ended)


async def _tokens(session: Session, pieces: list[Piece], counted: str) -> int:
    if counted == "ids":
        return sum(len(piece.ids) for piece in pieces)
    text = "".join(piece.text for piece in pieces)
    return len(await in_thread(lambda: session.tokenizer.encode(text)))


def _figures(runs: list[Run], length: int) -> dict[str, Any]:
    """Medians and spreads of all runs."""
    rates = [run.later / run.rest for run in runs if run.later > 0 and run.rest > 0]
    return {
        "runs": len(runs),
        "tokens": median(run.tokens for run in runs),
        "counted": COUNTED[runs[0].counted],
        "first_token_seconds": _spread([run.first for run in runs]),
        "prefill_tokens_per_second": _spread([length / run.first for run in runs]),
        "decode_tokens_per_second": _spread(rates) if rates else None,
        "ended": next((run.ended for run in runs if run.ended), None),
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def _print(measured: dict[str, Any]) -> None:
    told = [f"{name} {measured[name]}" for name in FACTS if name in measured]
    first = measured["first_token_seconds"]["median"] * 1e3
    lines = [
        ("model", f"{measured['model']}, {measured['layers']} layers"),
        ("device", ", ".join([measured["device"], *told])),
        ("prefill", _rate(measured["prefill_tokens_per_second"])),
        ("", f"{measured['prompt_tokens']} tokens, first token after {first:.1f} ms"),
    ]
    if decode := measured["decode_tokens_per_second"]:
        lines.append(("decode", _rate(decode)))
        lines.append(("", f"{measured['tokens']:.0f} tokens, {measured['runs']} answers"))
    else:
        lines.append(("decode", "not measured: the answer has one token; ask something longer"))
    lines.append(("counted", measured["counted"]))
    if measured["ended"]:
        text = f"the answer ended before {measured['max_tokens']} tokens: {measured['ended']}"
        lines.append(("note", text))
    for name, text in lines:
        show(f"{name:<9}{text}\n")


def _rate(figure: dict[str, float]) -> str:
    return f"{figure['median']:.1f} tokens/s ({figure['min']:.1f} to {figure['max']:.1f})"


def _write(path: Path, measured: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CommandError(f"The figures could not be written: {error}") from error
