"""Which arrays can be one of a request's inputs; a node that has restarted sends others."""

import numpy as np
from exo.inference.shard import Shard

from ...contract import Array
from ...engine import prompts
from ...engine.engine import Engine
from ...repository.facts import LARGEST_ID


def refusal(
    engine: Engine, shard: Shard, request_id: str, x: Array, is_stepping: bool
) -> str | None:
    """Why x can't be this request's next input, as a sentence; None where it can.

    x: ids (1, S), a prompt's UTF-8 bytes (1, S) uint8, or hidden states (1, S, D). The request
    goes on without what is refused: a node believes in other layers than its peers for some
    seconds after a restart.
    """
    takes_ids = engine.executor.whole_model or shard.is_first_layer()
    are_ids = x.dtype.kind in "iu" and x.ndim == 2
    are_hidden = x.dtype.kind == "f" and x.ndim == 3
    right = (are_ids if takes_ids else are_hidden) and len(x) == 1 and x.size > 0
    low = high = 0
    if right and are_ids:  # a reduction costs more than all else here
        low, high = (x.item(),) * 2 if x.size == 1 else (int(x.min()), int(x.max()))
    if not right or low < 0:
        what = "token ids (1, S)" if takes_ids else "hidden states (1, S, D)"
        return (
            f"this node has layers {shard.start_layer} to {shard.end_layer} and takes {what}, "
            f"but it was sent {x.dtype} {x.shape}: the cluster has just changed, or another "
            "node runs another engine. Send the request again"
        )
    if x.shape[1] > 4 * prompts.MOST_CHARACTERS:  # a character has up to four bytes
        return f"the prompt is too long: {x.dtype} {x.shape}"
    if high > LARGEST_ID:
        return f"there is no token {high}"
    request = engine.requests.get(request_id)
    if is_stepping or (request and not request.takes(x)):
        return f"{x.dtype} {x.shape} is not this request's next step, which goes on without it"
    passes_on = engine.executor.whole_model and not shard.is_last_layer()
    is_prompt = x.shape[1] > 1 or x.dtype == np.uint8  # as ids, or as text
    if is_prompt or passes_on or request:
        return None
    return (
        "this node has not seen the beginning of this request: it has restarted, or the "
        "request has ended. Send it again"
    )
