"""What a runner drives."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable
from typing import Any

from exo.records import (
    CANCEL_ALL_TASKS,
    BoundInstance,
    GenerationTask,
    ModelLoadingResponse,
    TaskId,
)


class Engine(ABC):
    _cancelled_tasks: set[TaskId]

    def should_cancel(self, task_id: TaskId) -> bool:
        return not self._cancelled_tasks.isdisjoint({task_id, CANCEL_ALL_TASKS})

    @abstractmethod
    def warmup(self) -> None: ...
    @abstractmethod
    def submit(self, task: GenerationTask) -> None: ...
    @abstractmethod
    def step(self) -> Iterable[tuple[TaskId, Any]]: ...
    @abstractmethod
    def close(self) -> None: ...
    @abstractmethod
    def serve_prefill(self, request: Any, wfile: Any) -> None: ...


class Builder(ABC):
    @abstractmethod
    def connect(self, bound_instance: BoundInstance) -> None: ...
    @abstractmethod
    def load(self, bound_instance: BoundInstance) -> Generator[ModelLoadingResponse]: ...
    @abstractmethod
    def build(self) -> Engine: ...
    @abstractmethod
    def close(self) -> None: ...
