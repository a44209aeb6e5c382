"""Drives one engine: one new task between two steps, and nothing of a task after its end."""

from queue import Empty
from typing import Any

from exo.records import CancelledResponse, FinishedResponse, OtherTask


class Runner:
    """It sends (what, of which task, more)."""

    def __init__(self, instance: Any, builder: Any, events: Any, tasks: Any) -> None:
        self._instance, self._tasks, self.generator = instance, tasks, builder
        self._events = events
        self.active_tasks: dict[str, Any] = {}

    def main(self) -> None:
        while self._handle(self._tasks.receive()):
            while self.active_tasks:
                self._step()
                try:
                    if not self._handle(self._tasks.receive(block=False)):
                        return
                except Empty:
                    continue
            self._send("RunnerReady")

    def _send(self, what: str, task: str = "", more: Any = None) -> None:
        self._events.send((what, task, more))

    def _handle(self, task: Any) -> bool:
        """Begin a task; whether there will be more."""
        kind = task.kind if isinstance(task, OtherTask) else ""
        if kind == "Shutdown":
            self.generator.close()
        elif kind == "LoadModel":
            for progress in self.generator.load(self._instance):
                self._send("RunnerLoading", "", [progress.layers_loaded, progress.total])
            self.generator = self.generator.build()
            self.generator.warmup()
        else:
            self.active_tasks[task.task_id] = task
            self.generator.submit(task)
        return kind != "Shutdown"

    def _step(self) -> None:
        for task_id, result in self.generator.step():
            if not isinstance(result, CancelledResponse | FinishedResponse):
                self.active_tasks[task_id]  # exo looks its command up: KeyError after its end
            else:
                del self.active_tasks[task_id]
            self._send(type(result).__name__, task_id, result)
