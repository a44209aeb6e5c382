"""The process that runs cases, and that an operation may take down: a case a line, a verdict back.

What an operation prints goes to stderr: stdout has the verdicts alone.
"""

import faulthandler
import json
import os
import sys

from ..command.output import sentence
from ..llama.table import Own
from .cases import parsed
from .device import own as device_own
from .measure import Verdict, judge


def verdict(text: str, own: Own, timed: bool) -> Verdict:
    """What becomes of a case that doesn't end this process."""
    try:
        return judge(parsed(text), own, timed)
    except NotImplementedError as error:
        return Verdict("missing", str(error) or "NotImplementedError")
    except Exception as error:
        return Verdict("raised", sentence(error))


def main() -> None:
    """Say what the device has, then answer until stdin ends."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    faulthandler.enable()

    def say(content: dict[str, object]) -> None:
        print(json.dumps(content), file=output, flush=True)

    try:
        own = device_own()
    except BaseException as error:  # an SDK may end the process where its device is missing
        say({"why": sentence(error)})
        return
    say({"own": list(own.table), "whose": own.whose})
    for line in sys.stdin:
        text, timed = json.loads(line)
        say(verdict(text, own, timed).to_dict())


if __name__ == "__main__":
    main()
