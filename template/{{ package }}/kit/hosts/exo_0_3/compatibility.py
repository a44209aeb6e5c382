"""What of exo 0.3 this host was written for; it is looked at before anything is changed.

Every fact here is one that another module of this folder depends on. A version number says nothing:
0.3.70 stood for weeks of commits.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ....names import ENGINE_NAME, PROJECT
from ...logs import one_line

EXO_COMMIT = "b5375f8ce"  # of exo-explore/exo, 2026-06-22: what this was tested with
GET_EXO = "https://github.com/exo-explore/exo says how to install exo 0.3"
PATCHES, BUILDER = "exo.worker.engines.mlx.patches", "exo.worker.engines.mlx.builder"
BUILDER_ARGUMENTS = {"model_id", "event_sender", "cancel_receiver"}
ABSTRACT = {
    "exo.worker.engines.base.Builder": "build close connect load",
    "exo.worker.engines.base.Engine": "close serve_prefill step submit warmup",
    "exo.download.shard_downloader.ShardDownloader": (
        "ensure_shard get_shard_download_status get_shard_download_status_for_shard on_progress"
    ),
}
# The fields that are read or made; exo may want no others where one is made.
RECORDS = {
    "exo.shared.types.chunks.TokenChunk": (
        "model text token_id usage finish_reason stats logprob top_logprobs is_thinking"
    ),
    "exo.shared.types.chunks.ErrorChunk": "model error_message",
    "exo.shared.types.chunks.ToolCallChunk": "model tool_calls usage stats",
    "exo.api.types.Usage": (
        "prompt_tokens completion_tokens total_tokens prompt_tokens_details "
        "completion_tokens_details"
    ),
    "exo.api.types.GenerationStats": (
        "prompt_tps generation_tps prompt_tokens generation_tokens peak_memory_usage"
    ),
    "exo.api.types.ToolCallItem": "id name arguments",
    "exo.api.types.TopLogprobItem": "token logprob bytes",
    "exo.shared.types.worker.runner_response.ModelLoadingResponse": "layers_loaded total",
    "exo.shared.types.text_generation.TextGenerationTaskParams": (
        "model input instructions max_output_tokens temperature top_p top_k min_p seed stop tools "
        "stream chat_template_messages enable_thinking reasoning_effort images logprobs "
        "top_logprobs repetition_penalty presence_penalty frequency_penalty"
    ),
    "exo.shared.models.model_cards.ModelCard": (
        "model_id storage_size n_layers hidden_size supports_tensor tasks backends family "
        "quantization base_model capabilities context_length trust_remote_code"
    ),
    "exo.shared.types.worker.shards.PipelineShardMetadata": (
        "model_card device_rank world_size start_layer end_layer n_layers"
    ),
    "exo.download.download_utils.RepoDownloadProgress": (
        "repo_id repo_revision shard completed_files total_files downloaded "
        "downloaded_this_session total overall_speed overall_eta status"
    ),
}


class HostError(RuntimeError):
    """exo 0.3 can't be started with a plugin; the text says why, and what to do."""


def require() -> None:
    """Raise HostError where exo is not here, or not what this was written for."""
    if wrong := not_here():
        raise HostError(wrong)
    if sentences := list(differences()):
        raise HostError(
            f"this exo is not the one that this plugin knows (exo-explore/exo at {EXO_COMMIT}): "
            f"{'; '.join(sentences)}. Nothing was changed. Update the plugin with `copier update`, "
            "or use that commit of exo"
        )


def not_here() -> str | None:
    """Why there is no exo 0.3 here, as a sentence; None where there is one."""
    old = f"exo 0.3 takes Python 3.13, and this is {sys.version_info[0]}.{sys.version_info[1]}. "
    advice = GET_EXO if sys.version_info >= (3, 13) else old + GET_EXO
    try:
        if find_spec("exo") is None:
            return f"exo is not installed in this environment. {advice}"
        if find_spec("exo.inference") and find_spec("exo.inference.plugin_discovery"):
            return (
                f"this environment has exo 0.0, which finds {PROJECT} by itself: start it with "
                f"`exo --inference-engine {ENGINE_NAME}`"
            )
        import_module("exo.worker.runner.bootstrap")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("exo."):
            return None if find_spec("exo.worker") else f"this 'exo' is another project. {advice}"
        return f"exo is incomplete here: there is no {error.name}. {advice}"
    except (Exception, SystemExit) as error:
        return f"exo can't be imported here: {' '.join(str(error).split())}. {advice}"
    return None


def differences() -> Iterator[str]:
    """What is other than this was written for; nothing where exo is as it was."""
    checks: list[Callable[[], Iterator[str]]] = [_entrypoint, _places]
    checks += [partial(_abstract, *each) for each in ABSTRACT.items()]
    checks += [partial(_record, *each) for each in RECORDS.items()]
    for check in checks:
        try:
            yield from check()
        except (ImportError, AttributeError) as error:
            yield one_line(error)


def _named(path: str) -> Any:
    """The object at module.Name. Raises ImportError, AttributeError."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def _entrypoint() -> Iterator[str]:
    bootstrap = import_module("exo.worker.runner.bootstrap")
    supervisor = import_module("exo.worker.runner.supervisor")
    code = bootstrap.entrypoint.__code__
    if "bound_instance" not in inspect.signature(bootstrap.entrypoint).parameters:
        yield "bootstrap.entrypoint takes no bound_instance"
    lazy = (PATCHES, "apply_mlx_patches", BUILDER, "MlxBuilder")
    if missing := [name for name in lazy if name not in code.co_names]:
        yield f"bootstrap.entrypoint does not import {', '.join(missing)} itself"
    if not any(isinstance(c, tuple) and set(c) == BUILDER_ARGUMENTS for c in code.co_consts):
        yield f"MlxBuilder is not called with {', '.join(sorted(BUILDER_ARGUMENTS))}"
    if supervisor.entrypoint is not bootstrap.entrypoint:
        yield "supervisor.entrypoint is not bootstrap's: something else has changed it"
    if "entrypoint" not in supervisor.RunnerSupervisor.create.__code__.co_names:
        yield "RunnerSupervisor.create does not look entrypoint up"


def _places() -> Iterator[str]:
    """What is changed besides, and two functions."""
    if not isinstance(_named("exo.shared.models.model_cards._BUILTIN_CARD_DIRS"), list):
        yield "model_cards._BUILTIN_CARD_DIRS is no list"
    if "offline" not in inspect.signature(_named("exo.main.exo_shard_downloader")).parameters:
        yield "exo_shard_downloader takes no offline"
    for name in ("build_model_path", "resolve_existing_model"):
        _named(f"exo.download.download_utils.{name}")


def _abstract(path: str, members: str) -> Iterator[str]:
    if (names := " ".join(sorted(_named(path).__abstractmethods__))) != members:
        yield f"{path} asks for {names}"


def _record(path: str, names: str) -> Iterator[str]:
    fields = _named(path).model_fields
    if missing := [name for name in names.split() if name not in fields]:
        yield f"{path} has no {', '.join(missing)}"
    required = [name for name, field in fields.items() if field.is_required()]
    if more := [name for name in required if name not in names.split()]:
        yield f"{path} asks for {', '.join(more)}"
