"""Which of a server's models is meant."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..cards import Model
from .address import clean
from .client import ServerError

_LISTED = 30  # names in a sentence

# After a model's name these words make it another model.
_OTHER_MODEL = re.compile(
    r"(^|-)(2507|audio|base|chat|coder|embedding|instruct|math|omni|reranker|thinking|vl)(-|$)"
)


@dataclass(frozen=True)
class Served:
    """One of the server's models. context: how many tokens it takes; root: what it was made of.

    note: what else is known of it, for a list.
    """

    name: str
    context: int | None = None
    root: str = ""
    note: str = ""


class Several(ServerError):
    """More than one of the server's models fits; the text says which."""


def choose_model(model: Model, names: Sequence[str], chosen: str | None, setting: str) -> str:
    """The server's name for a model: the same, without case, or that name and more after it.

    chosen: what the user says that it is, in the setting of this name. Raises ServerError where
    there is none, Several where there is more than one.
    """
    if chosen:
        if chosen not in names:
            raise ServerError(f"{setting} is {chosen!r}, but the server has: {listed(names)}")
        return chosen
    fitting = next(iter(_fitting(model, names)), [])
    if len(fitting) == 1:
        return fitting[0]
    problem = f"several for {model.id}: {listed(fitting)}" if fitting else f"no {model.id}"
    raise (Several if fitting else ServerError)(
        f"the server has {problem}; its models are: {listed(names)}. "
        f"Set {setting} to the one that you mean"
    )


def listed(names: Sequence[str]) -> str:
    """A server's names, for a sentence."""
    words = [clean(name) for name in names[:_LISTED]]
    if len(names) > _LISTED:
        words.append(f"and {len(names) - _LISTED} more")
    return ", ".join(words) or "none"


def _fitting(model: Model, names: Sequence[str]) -> list[list[str]]:
    """The names that fit, those of each rule that finds any, the strictest first."""
    base = model.repository.rsplit("/", 1)[-1]
    known = [model.id, base, model.repository]
    rules = [[n for n in names if _last(n) in known]]
    rules += [
        [n for n in names if same(_last(n)) in {same(w) for w in known}]
        for same in (str.lower, _plain)
    ]
    plain = _plain(base)
    rules += [
        [n for n in names if _is_build(_plain(_last(n)), start)]
        for start in (plain, plain.removesuffix("-instruct"))
    ]
    return [names for names in rules if names]


def _is_build(name: str, model: str) -> bool:
    """Whether a directory's name is the model's and a build's marks, no other model's."""
    rest = name.removeprefix(model + "-")
    return rest != name and not _OTHER_MODEL.search(rest)


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
