from exo.records import CANCEL_ALL_TASKS as CANCEL_ALL_TASKS
from exo.records import GenerationTask as GenerationTask
from exo.records import TaskId as TaskId
from exo.records import TextGeneration as TextGeneration
