"""What exo 0.3 drives."""

import random
from types import SimpleNamespace
from typing import Any

from exo.api.types import CompletionTokensDetails, PromptTokensDetails, Usage
from exo.shared.types.chunks import ErrorChunk, TokenChunk
from exo.shared.types.worker.runner_response import (
    CancelledResponse,
    FinishedResponse,
    ModelLoadingResponse,
)
from exo.worker.engines.base import Builder, Engine


class StepsBuilder(Builder):
    """Nothing to load."""

    def __init__(self, model_id: Any, event_sender: Any, cancel_receiver: Any) -> None:
        self.model_id, self.cancels = model_id, cancel_receiver

    def load(self, bound: Any) -> Any:
        yield ModelLoadingResponse(layers_loaded=4, total=4)

    def connect(self, bound: Any) -> None:
        return

    def build(self) -> Any:
        return StepsEngine(self.model_id, self.cancels)

    def close(self) -> None:
        return


class StepsEngine(Engine):
    """The letter after n is n + 1; with a temperature, each is drawn by the request's seed."""

    def __init__(self, model_id: Any, cancels: Any) -> None:
        self.model_id, self.cancels, self.tasks = model_id, cancels, dict[Any, Any]()

    def warmup(self) -> None:
        return

    def close(self) -> None:
        return

    def serve_prefill(self, request: Any, wfile: Any) -> None:
        return

    def submit(self, task: Any) -> None:
        params = task.task_params
        drawn = random.Random(params.seed) if params.temperature else None
        left = params.max_output_tokens
        self.tasks[task.task_id] = SimpleNamespace(params=params, count=0, left=left, drawn=drawn)

    def step(self) -> Any:
        for task_id in self.cancels.collect():
            if self.tasks.pop(task_id, None):
                yield task_id, CancelledResponse()
        for task_id, task in list(self.tasks.items()):
            if task.params.images:
                yield task_id, ErrorChunk(model=self.model_id, error_message="text alone")
                task.left = 0
            else:
                yield task_id, self.chunk(task)
            if not task.left:
                del self.tasks[task_id]
                yield task_id, FinishedResponse()

    def chunk(self, task: Any) -> Any:
        task.count, task.left = task.count + 1, task.left - 1
        letter = chr(97 + (task.drawn.randrange(26) if task.drawn else task.count % 26))
        usage, finish = (None, None) if task.left else (usage_of(task.count), "length")
        return TokenChunk(
            model=self.model_id, text=letter, token_id=1, usage=usage, finish_reason=finish
        )


def usage_of(count: int) -> Any:
    return Usage(
        prompt_tokens=4,
        completion_tokens=count,
        total_tokens=4 + count,
        prompt_tokens_details=PromptTokensDetails(),
        completion_tokens_details=CompletionTokensDetails(),
    )
