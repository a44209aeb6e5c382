"""JSON that a model wrote: read within bounds, and as it is written."""

import json
import re
from typing import Any, NoReturn


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


# Numbers stay text: to make some of millions of digits takes minutes.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse)
_BLANKS = re.compile(r"[ \t\n\r]*")


def decoded(text: str) -> Any:
    """What a text is, its numbers as texts; None where it is no JSON."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def is_object(text: str) -> bool:
    """Whether a text is a JSON object."""
    return isinstance(decoded(text), dict)


def members_of(text: str) -> dict[str, str]:
    """An object's members by name, each as it is written. Raises ValueError, RecursionError."""
    if not is_object(text):
        raise ValueError("this is no JSON object")
    members, place = dict[str, str](), text.index("{")
    while text[place] != "}":
        place = _skip(text, place + 1)  # behind { or ,
        if text[place] == "}":
            break
        name, place = _value(text, place)
        start = _skip(text, _skip(text, place) + 1)  # behind the colon
        _, end = _value(text, start)
        members[name], place = text[start:end], _skip(text, end)
    return members


def _value(text: str, place: int) -> tuple[Any, int]:
    """A JSON value that begins here, and where it ends."""
    return _DECODER.raw_decode(text, place)


def _skip(text: str, place: int) -> int:
    blanks = _BLANKS.match(text, place)
    return blanks.end() if blanks else place
