"""Starts a runner's process, and speaks with it over three queues."""

import logging
from multiprocessing import get_context
from typing import Any

from exo.utils.channels import mp_channel
from exo.worker.runner.bootstrap import entrypoint

JOIN_SECONDS = 0.1  # before a process is told to end; exo waits 3 s, in which none ends by itself


class RunnerSupervisor:
    def __init__(self, process: Any, events: Any, tasks: Any, cancels: Any) -> None:
        self.process, self.events, self.tasks, self.cancels = process, events, tasks, cancels

    @classmethod
    def create(cls, *, bound_instance: Any) -> "RunnerSupervisor":
        """Start it; the function is looked up here, each time."""
        (to_us, events), (tasks, to_do), (cancels, to_cancel) = [mp_channel() for _ in range(3)]
        arguments = (bound_instance, to_us, to_do, to_cancel, logging.getLogger())
        process = get_context("spawn").Process(target=entrypoint, args=arguments, daemon=True)
        process.start()
        return cls(process, events, tasks, cancels)

    def stop(self) -> None:
        """End it: exo's node says nothing, waits, and sends SIGTERM."""
        self.process.join(JOIN_SECONDS)
        self.process.terminate()
        self.process.join()
