"""Log-probabilities as servers send them beside an answer's ids, each in its own shape."""

from collections.abc import Iterable
from typing import Any

from ..contract import Logprob
from ..server.events import Event, number, part, parts

Pairs = Iterable[tuple[Any, Any]]  # of an id and its log-probability


def of_completion(choice: Event, most: int) -> tuple[Logprob, ...]:
    """OpenAI's shape for completions, the tokens named by their ids: "token_id:123"."""
    entries = part(choice, "logprobs")
    names, values = entries.get("tokens"), entries.get("token_logprobs")
    tops = entries.get("top_logprobs") or []
    if not (isinstance(names, list) and isinstance(values, list) and isinstance(tops, list)):
        return ()
    tops += [{}] * len(names)
    likeliest = [each.items() if isinstance(each, dict) else () for each in tops]
    logprobs = (
        _logprob(name, value, top, most)
        for name, value, top in zip(names, values, likeliest, strict=False)
    )
    return _whole(logprobs)


def of_llama(event: Event, most: int) -> tuple[Logprob, ...]:
    """llama.cpp's own route."""
    logprobs = []
    for each in parts(event, "completion_probabilities"):
        top = [(one.get("id"), one.get("logprob")) for one in parts(each, "top_logprobs")]
        logprobs.append(_logprob(each.get("id"), each.get("logprob"), top, most))
    return _whole(logprobs)


def of_sglang(meta: Event, new: int, most: int) -> tuple[Logprob, ...]:
    """SGLang's own route: (value, id, text) of all tokens so far, of which so many are new."""
    entries, tops = meta.get("output_token_logprobs"), meta.get("output_top_logprobs")
    if not isinstance(entries, list) or not new:
        return ()
    tops = tops[-new:] if isinstance(tops, list) else [None] * new
    logprobs = []
    for each, top in zip(entries[-new:], tops, strict=False):
        value, token = each[:2] if isinstance(each, list) and len(each) > 1 else (None, None)
        likeliest = [(one[1], one[0]) for one in top or [] if isinstance(one, list) and one[1:]]
        logprobs.append(_logprob(token, value, likeliest, most))
    return _whole(logprobs)


def _whole(logprobs: Iterable[Logprob | None]) -> tuple[Logprob, ...]:
    """All of them, or none where one is missing: they stand beside ids."""
    known = tuple(logprobs)
    return tuple(each for each in known if each) if all(known) else ()


def _logprob(token: Any, value: Any, top: Pairs, most: int) -> Logprob | None:
    name = _id(token)
    if name is None or not isinstance(value, int | float):
        return None
    pairs = [(_id(one), each) for one, each in top if isinstance(each, int | float)]
    known = [(one, float(each)) for one, each in pairs if one is not None]
    known.sort(key=lambda pair: -pair[1])
    return Logprob(name, float(value), tuple(known[:most]))


def _id(token: Any) -> int | None:
    """An id, or the name that stands for one."""
    name = str(token).removeprefix("token_id:")
    return int(name) if name.isascii() and name.isdigit() and len(name) < 10 else number(token)
