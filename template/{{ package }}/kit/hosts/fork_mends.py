"""What exo gets wrong for plugins, mended from here.

Each fix is idempotent, logged once, and does nothing where exo no longer has the fault;
EXO_PLUGIN_HOST_FIXES=0 switches all of them off.
"""

import functools
import logging
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from .models import PRETTY_NAMES

ENGINE_NAME = "{{ engine_name }}"
_log = logging.getLogger(__name__)
_mended: set[tuple[str, type]] = set()


def mend(engine_class: type) -> None:
    """Apply every fix to the parts of exo that this process has loaded."""
    if os.environ.get("EXO_PLUGIN_HOST_FIXES") == "0":
        return
    if models := sys.modules.get("exo.models"):
        name_models(models)
    if node := sys.modules.get("exo.orchestration.node"):
        keep_engine(node.Node, engine_class)
        tell_ends(node.Node, engine_class)
        end_failed_answers(node.Node, engine_class)
        end_cut_answers(node.Node, engine_class)
        end_orphans(node.Node, engine_class)


def _replace(node_class: Any, name: str, mend_it: Callable[[Any], Any], said: str) -> None:
    """Put what `mend_it` makes of exo's own method in its place, once."""
    original = getattr(node_class, name, None)
    if original is None or (name, node_class) in _mended:
        return
    _mended.add((name, node_class))
    setattr(node_class, name, functools.wraps(original)(mend_it(original)))
    _log.info(said)


def name_models(models: Any) -> None:
    """exo has no entry point for the names that its web page shows."""
    for model_id, name in PRETTY_NAMES.items():
        models.pretty_name.setdefault(model_id, name)


def keep_engine(node_class: Any, engine_class: type) -> None:
    """When a peer joins or leaves, exo puts tinygrad in a plugin's place (node.py:521-526)."""
    offered = getattr(node_class, "get_supported_inference_engines", None)
    stand_in = SimpleNamespace(inference_engine=object.__new__(engine_class))
    if offered is None or ENGINE_NAME in offered(stand_in):
        return

    def mended(original: Any) -> Any:
        async def select_best_inference_engine(self: Any) -> None:
            if not isinstance(self.inference_engine, engine_class):
                await original(self)

        return select_best_inference_engine

    said = "exo would replace this engine when the cluster changes: it stays"
    _replace(node_class, "select_best_inference_engine", mended, said)


def tell_ends(node_class: Any, engine_class: Any) -> None:
    """No engine hears that an answer has ended (node.py:144-149), but every node does."""

    def mended(original: Any) -> Any:
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)

            def hear(request_id: str, _: list[int], finished: bool) -> None:
                if finished and isinstance(self.inference_engine, engine_class):
                    self.inference_engine.answer_ended(request_id)

            self.on_token.register(__package__).on_next(hear)

        return __init__

    _replace(node_class, "__init__", mended, "exo tells its engines of no end: this one hears it")


def end_failed_answers(node_class: Any, engine_class: Any) -> None:
    """An error after the first step is printed and dropped (node.py:385-388): end the answer.

    The client gets what there is of the answer, then the error's sentence, at once; the last
    token is no EOS, so finish_reason is "length".
    """

    def mended(original: Any) -> Any:
        async def _process_tensor(
            self: Any,
            base_shard: Any,
            tensor: Any,
            request_id: Any = None,
            *rest: Any,
            **named: Any,
        ) -> Any:
            engine = self.inference_engine
            result = await original(self, base_shard, tensor, request_id, *rest, **named)
            if isinstance(engine, engine_class) and (sentence := engine.take_error(request_id)):
                await _end_answer(self, request_id, sentence)
            return result

        return _process_tensor

    said = "exo drops an engine's later errors: they end the answer"
    _replace(node_class, "_process_tensor", mended, said)


def end_cut_answers(node_class: Any, engine_class: Any) -> None:
    """An error on the way to the next node is dropped (node.py:152): end the answer."""

    def mended(original: Any) -> Any:
        async def forward_tensor(
            self: Any, base_shard: Any, tensor: Any, request_id: Any, *rest: Any, **named: Any
        ) -> None:
            try:
                await original(self, base_shard, tensor, request_id, *rest, **named)
            except Exception as error:
                if not isinstance(self.inference_engine, engine_class):
                    raise
                why = error.details() if hasattr(error, "details") else error  # gRPC's is long
                _log.error("request %s: the next node can't be reached: %s", request_id, why)
                sentence = f"{__package__}: a node of the cluster went away. Send the request again"
                await _end_answer(self, request_id, sentence)

        return forward_tensor

    said = "exo drops the error of a node that can't be reached: it ends the answer"
    _replace(node_class, "forward_tensor", mended, said)


def end_orphans(node_class: Any, engine_class: Any) -> None:
    """Who joins or leaves changes everybody's layers, and answers in flight wait for ever."""

    def mended(original: Any) -> Any:
        async def update_peers(self: Any, *args: Any, **kwargs: Any) -> bool:
            changed: bool = await original(self, *args, **kwargs)
            if changed and isinstance(self.inference_engine, engine_class):
                reason = "a node joined or left the cluster"
                for request_id in await self.inference_engine.drop_parts(reason):
                    sentence = f"{__package__}: {reason}. Send the request again"
                    await _end_answer(self, request_id, sentence)
            return changed

        return update_peers

    said = "exo leaves answers waiting when the cluster changes: they end"
    _replace(node_class, "update_peers", mended, said)


async def _end_answer(node: Any, request_id: str, sentence: str) -> None:
    if node.buffered_token_output.get(request_id, ([], False))[1]:
        return  # exo ended it by itself
    tokenizer = node.inference_engine.tokenizer
    ids = tokenizer.encode(f"\n[{sentence}]") if tokenizer else []
    node.trigger_on_token_callbacks(request_id, ids, True)
    await node.broadcast_result(request_id, ids, True)
