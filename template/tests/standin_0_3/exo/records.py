"""exo's records; each is imported from the module in which exo has it."""

from dataclasses import MISSING, dataclass, field, fields
from datetime import timedelta
from typing import Any, ClassVar, Literal, NamedTuple, dataclass_transform
from uuid import uuid4


class Field(NamedTuple):
    required: bool

    def is_required(self) -> bool:
        return self.required


@dataclass_transform(kw_only_default=True)
class Record:
    """Its fields are given by name, and none besides."""

    model_fields: ClassVar[dict[str, Field]]

    def __init_subclass__(cls) -> None:
        made: Any = dataclass(kw_only=True, unsafe_hash=True)(cls)
        cls.model_fields = {
            f.name: Field(f.default is MISSING and f.default_factory is MISSING)
            for f in fields(made)
        }


class ModelId(str):
    def normalize(self) -> str:
        """The name of the model's folder."""
        return self.replace("/", "--")


class TaskId(str):
    pass


CANCEL_ALL_TASKS = TaskId("CANCEL_ALL_TASKS")


class Memory(Record):
    in_bytes: int = 0


class ModelCard(Record):
    model_id: ModelId
    storage_size: Memory
    n_layers: int
    hidden_size: int
    supports_tensor: bool
    tasks: list[str]
    backends: list[str]
    family: str = ""
    quantization: str = ""
    base_model: str = ""
    capabilities: list[str] = field(default_factory=list)
    context_length: int = 0
    trust_remote_code: bool = True


class PipelineShardMetadata(Record):
    model_card: ModelCard
    device_rank: int
    world_size: int
    start_layer: int
    end_layer: int  # that is not one of them
    n_layers: int


ShardMetadata = PipelineShardMetadata


class BoundInstance(Record):
    bound_shard: ShardMetadata


class TextGenerationTaskParams(Record):
    model: ModelId
    input: list[Any]
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[dict[str, Any]] | None = None
    stream: bool = False
    top_k: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    chat_template_messages: list[dict[str, Any]] | None = None
    enable_thinking: bool | None = None
    reasoning_effort: str | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    images: list[str] = field(default_factory=list)


class TextGeneration(Record):
    task_id: TaskId = field(default_factory=lambda: TaskId(uuid4()))
    instance_id: str = ""
    command_id: str = ""
    task_params: TextGenerationTaskParams


class OtherTask(Record):
    task_id: TaskId
    kind: Literal["LoadModel", "ImageGeneration", "Shutdown"]


GenerationTask = TextGeneration | OtherTask


class PromptTokensDetails(Record):
    cached_tokens: int = 0


class CompletionTokensDetails(Record):
    reasoning_tokens: int = 0


class Usage(Record):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class GenerationStats(Record):
    prompt_tps: float
    generation_tps: float
    prompt_tokens: int
    generation_tokens: int
    peak_memory_usage: Memory


class ToolCallItem(Record):
    id: str = field(default_factory=lambda: str(uuid4()))
    name: str
    arguments: str


class TopLogprobItem(Record):
    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenChunk(Record):
    model: ModelId
    text: str
    token_id: int
    usage: Usage | None
    finish_reason: Literal["stop", "length"] | None = None
    stats: GenerationStats | None = None
    logprob: float | None = None
    top_logprobs: list[TopLogprobItem] | None = None
    is_thinking: bool = False


class ErrorChunk(Record):
    model: ModelId
    error_message: str


class ToolCallChunk(Record):
    model: ModelId
    tool_calls: list[ToolCallItem]
    usage: Usage | None
    stats: GenerationStats | None = None


Chunk = TokenChunk | ErrorChunk | ToolCallChunk


class ModelLoadingResponse(Record):
    layers_loaded: int
    total: int


class FinishedResponse(Record):
    pass


class CancelledResponse(Record):
    pass


class RepoDownloadProgress(Record):
    repo_id: str
    repo_revision: str
    shard: ShardMetadata
    completed_files: int
    total_files: int
    downloaded: Memory
    downloaded_this_session: Memory
    total: Memory
    overall_speed: float
    overall_eta: timedelta
    status: Literal["not_started", "in_progress", "complete"]
