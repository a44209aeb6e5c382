"""Which of ONNX Runtime's providers runs the graph, and that it really does."""

import importlib
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import onnxruntime as ort

from ..logs import one_line
from ..settings import PREFIX
from .plan import Plan
from .tensorrt import compiled

# A vendor's plug-in: a package beside ONNX Runtime that says its name and its library.
PLUGINS = (
    "onnxruntime_ep_openvino",
    "onnxruntime_ep_webgpu",
    "onnxruntime_ep_nv_tensorrt_rtx",
    "onnxruntime_qnn",
    "onnxruntime_ep_mlx",
)
# The best first. TensorRT compiles for minutes, and the others run few of a graph's nodes: ask.
AUTOMATIC = ("NvTensorRTRTX", "CUDA", "CPU")
HALF = ("CUDA", "Tensorrt", "NvTensorRTRTX")  # attention wants float16 there
BESIDE = {"Tensorrt": ("CUDA",)}  # runs what the first one can't
MEMORY = {"CUDA": "cuda", "Tensorrt": "cuda", "NvTensorRTRTX": "cuda"}
ENDING = "ExecutionProvider"
COUNTED = "session.record_ep_graph_assignment_info"
_REGISTERED: set[str] = set()


class ProviderError(RuntimeError):
    """A provider that was asked for does not run here."""


@dataclass(frozen=True)
class Provider:
    """The provider that was chosen. half: it computes in float16; memory: where its arrays are."""

    name: str
    options: dict[str, str]
    device: int = 0

    @property
    def half(self) -> bool:
        """Whether attention runs there in float16 only."""
        return self.name in HALF

    @property
    def memory(self) -> tuple[str, int]:
        """Where arrays that stay on the device are."""
        return (MEMORY[self.name], self.device) if self.name in MEMORY else ("cpu", 0)


def register(plugin: str = "") -> dict[str, str]:
    """Make installed plug-ins known; what is wrong with those that can't be used, by provider.

    plugin: the one that has to be there. Raises ProviderError.
    """
    if plugin and find_spec(plugin) is None:
        raise ProviderError(
            f"the provider's package {plugin} is not installed; "
            f"pip install {plugin.replace('_', '-')}"
        )
    wrong = {}
    for module in dict.fromkeys([plugin, *PLUGINS]):
        if not module or find_spec(module) is None:
            continue
        name, problem = _registered(module)
        if problem and module == plugin:
            raise ProviderError(problem)
        if problem:
            wrong[_short_name(name).lower()] = problem
    return wrong


def _registered(module: str) -> tuple[str, str]:
    """One plug-in, once in a process: its provider, and what is wrong with it."""
    name = module
    try:
        helper = importlib.import_module(module)
        # A package says one name, or all that it has.
        one = getattr(helper, "get_ep_name", None)
        name = one() if one else helper.get_ep_names()[0]
        if name not in _REGISTERED:
            ort.register_execution_provider_library(name, helper.get_library_path())
            _REGISTERED.add(name)
    except Exception as error:
        if not _devices(name):
            return name, f"{module} could not be registered: {_short(error)}"
        _REGISTERED.add(name)  # another engine of this process has registered it
    if _devices(name):
        return name, ""
    return name, (
        f"{module} was registered, and lists no device for {name}: this machine has none that it "
        "can use, or its driver is missing"
    )


def _devices(*names: str) -> list[Any]:
    """What a plug-in's provider can use here; none where none is registered under these names."""
    return [device for device in ort.get_ep_devices() if device.ep_name in names]


def available() -> list[str]:
    """The names of the providers here, without their ending; Azure's runs nothing."""
    named = [*ort.get_available_providers(), *(d.ep_name for d in ort.get_ep_devices())]
    short = dict.fromkeys(map(_short_name, named))
    return [name for name in short if name != "Azure"]


def chosen(plan: Plan, plugin: str = "") -> Provider:
    """The provider that is asked for, or the best one here. Raises ProviderError."""
    wrong = register(plugin)
    here = available()
    if plan.provider:
        wish = plan.provider.lower().removesuffix(ENDING.lower())
        name = next((name for name in here if name.lower() == wish), "")
        if not name:
            usual = "The README says which extra or package brings it"
            raise ProviderError(
                f"{plan.provider} is none of the providers here: {', '.join(sorted(here))}. "
                f"{wrong.get(wish, usual)}"
            )
    else:
        name = next(name for name in AUTOMATIC if name in here)
    options = compiled(name, plan.device) | plan.options
    if name in MEMORY and plan.device:
        options = {"device_id": str(plan.device)} | options
    return Provider(name, options, plan.device)


def session(
    model: bytes,
    options: ort.SessionOptions,
    provider: Provider,
    profiles: dict[str, str],
    folds: bool = True,
) -> Any:
    """A session on the provider. Raises ProviderError where another one took the graph.

    profiles: what TensorRT has to know of lengths. folds: whether constants are computed with now.
    """
    full = f"{provider.name}{ENDING}"
    options.add_session_config_entry(COUNTED, "1")
    without = None if folds else ["ConstantFolding"]
    settings = provider.options | (profiles if "trt_engine_cache_path" in provider.options else {})
    try:
        # A registered plug-in's provider is among the available ones too, since 1.25.1.
        plugged = not _REGISTERED.isdisjoint((full, provider.name))
        if full in ort.get_available_providers() and not plugged:
            beside = [f"{name}{ENDING}" for name in BESIDE.get(provider.name, ())]
            made = ort.InferenceSession(
                model, options, providers=[(full, settings), *beside], disabled_optimizers=without
            )
        else:
            one = _device(_devices(full, provider.name), provider)
            options.add_provider_for_devices([one], settings)
            made = ort.InferenceSession(model, options, disabled_optimizers=without)
    except ProviderError:
        raise
    except Exception as error:  # ONNX Runtime has a dozen kinds
        raise ProviderError(f"{provider.name} can't run this graph: {_short(error)}") from error
    _refuse_another(made, provider)
    return made


def _device(devices: list[Any], provider: Provider) -> Any:
    """The one that DEVICE numbers. Raises ProviderError where there are fewer."""
    if provider.device >= len(devices):
        raise ProviderError(
            f"{PREFIX}DEVICE is {provider.device}, and {provider.name} lists {len(devices)} here, "
            "which are numbered from 0 on"
        )
    return devices[provider.device]


def _refuse_another(made: Any, provider: Provider) -> None:
    """A provider that fails to start is the CPU without a word."""
    started = [name.removesuffix(ENDING) for name in made.get_providers()]
    if provider.name not in started:
        raise ProviderError(
            f"{provider.name} did not start, and ONNX Runtime took {started[0]} in its place; its "
            "log on stderr says why, most often a library or a driver that is missing"
        )
    nodes = assigned(made)
    if nodes and provider.name not in nodes:
        raise ProviderError(
            f"{provider.name} started, and takes no node of this graph: {summary(nodes)}"
        )


def assigned(made: Any) -> dict[str, int]:
    """A session's nodes by provider, as {"CUDA": 421, "CPU": 3}."""
    nodes: Counter[str] = Counter()
    for part in made.get_provider_graph_assignment_info():
        nodes[part.ep_name.removesuffix(ENDING)] += len(part.get_nodes())
    return dict(nodes)


def summary(nodes: dict[str, int]) -> str:
    """As "CUDA 421, CPU 3"."""
    return ", ".join(f"{name} {count}" for name, count in nodes.items())


def _short_name(name: str) -> str:
    return name.removesuffix(ENDING)


def _short(error: Exception) -> str:
    return one_line(error)[:500]
