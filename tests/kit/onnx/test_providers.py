"""Which provider runs, that none is silently the CPU, and which builds there are."""

import sys
from importlib.metadata import version
from types import ModuleType, SimpleNamespace

import pytest
from onnx_models import CONFIGS, backends

from exo_kit.backend import Backend
from exo_kit.kit.llama.config import Config
from exo_kit.kit.llama.random_checkpoint import write_checkpoint
from exo_kit.kit.onnx import builds, checkpoint, graph, plan, providers, tensorrt
from exo_kit.kit.onnx.builds import BuildError
from exo_kit.kit.onnx.graph import Kind
from exo_kit.kit.onnx.providers import Provider, ProviderError
from exo_kit.kit.settings import PREFIX, SettingError


@pytest.fixture
def folder(tmp_path):
    write_checkpoint(tmp_path, CONFIGS["llama"])
    return tmp_path


def planned(**settings):
    usual = {"provider": "", "precision": "", "options": {}, "threads": 1, "device": 0}
    return plan.Plan(**usual | settings)


@pytest.mark.parametrize("name", ["CPU", "cpu", "CPUExecutionProvider"])
def test_a_provider_is_asked_for_by_its_name(name):
    assert providers.chosen(planned(provider=name)).name == "CPU"


def test_a_provider_that_is_not_here_is_an_error_with_those_that_are(folder, set_):
    set_("PROVIDER", "Tensorrt")
    with pytest.raises(ProviderError, match=r"Tensorrt is none of the providers here: .*CPU"):
        backends(folder)


def fake(name):
    module = ModuleType(name)
    module.get_ep_name = lambda: "MadeUpExecutionProvider"
    module.get_library_path = lambda: "/nowhere/libep.so"
    return module


class Session:
    """A session that another provider took."""

    def __init__(self, *started, nodes=("CPU",)):
        self.started, self.nodes = started, nodes

    def get_providers(self):
        return [f"{name}ExecutionProvider" for name in self.started]

    def get_provider_graph_assignment_info(self):
        return [
            SimpleNamespace(ep_name=f"{name}ExecutionProvider", get_nodes=lambda: [1, 2])
            for name in self.nodes
        ]


@pytest.mark.parametrize(
    ("session", "says"),
    [
        (Session("CPU"), "CUDA did not start, and ONNX Runtime took CPU in its place"),
        (Session("CUDA", "CPU"), "CUDA started, and takes no node of this graph: CPU 2"),
    ],
)
def test_a_provider_that_became_the_cpu_is_an_error(monkeypatch, session, says):
    monkeypatch.setattr(providers.ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(providers.ort, "InferenceSession", lambda *_, **__: session)
    options = providers.ort.SessionOptions()
    with pytest.raises(ProviderError, match=says):
        providers.session(b"", options, Provider("CUDA", {}), {})


def test_a_session_that_cant_be_made_is_a_sentence_with_the_provider():
    options = providers.ort.SessionOptions()
    with pytest.raises(ProviderError, match="CPU can't run this graph: "):
        providers.session(b"no model", options, Provider("CPU", {}), {})


def test_nodes_are_counted_by_provider(folder):
    (backend,) = backends(folder)
    nodes = backend.nodes()
    assert sum(nodes.values()) > 40
    assert len(backend.check().split("nodes: ")[1].split(";")[0]) > 4


def test_the_package_of_a_vendor_that_is_missing_is_named():
    with pytest.raises(ProviderError, match="made_up is not installed; pip install made-up"):
        providers.chosen(planned(), "made_up")


def test_a_vendors_package_that_registers_nothing_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "made_up", fake("made_up"))
    monkeypatch.setattr(providers, "find_spec", lambda name: name == "made_up" or None)
    with pytest.raises(ProviderError, match="made_up could not be registered: "):
        providers.chosen(planned(), "made_up")
    monkeypatch.setattr(providers.ort, "register_execution_provider_library", lambda *_: None)
    monkeypatch.setattr(providers, "_REGISTERED", set())
    with pytest.raises(ProviderError, match="lists no device for MadeUpExecutionProvider"):
        providers.chosen(planned(), "made_up")


class Device:
    ep_name = "MadeUpExecutionProvider"


def test_a_plug_in_that_another_engine_has_registered_is_used(monkeypatch):
    def again(*_):
        raise RuntimeError("library is already registered under MadeUpExecutionProvider")

    monkeypatch.setitem(sys.modules, "made_up", fake("made_up"))
    monkeypatch.setattr(providers, "find_spec", lambda name: name == "made_up" or None)
    monkeypatch.setattr(providers, "_REGISTERED", set())
    monkeypatch.setattr(providers.ort, "register_execution_provider_library", again)
    monkeypatch.setattr(providers.ort, "get_ep_devices", lambda: [Device()])
    assert providers.register("made_up") == {}
    assert set(providers._REGISTERED) == {"MadeUpExecutionProvider"}  # no built-in one


def test_a_package_that_says_all_its_names_is_registered_too(monkeypatch):
    module = fake("made_up")
    del module.get_ep_name
    module.get_ep_names = lambda: ["MadeUpExecutionProvider"]
    monkeypatch.setitem(sys.modules, "made_up", module)
    monkeypatch.setattr(providers, "find_spec", lambda name: name == "made_up" or None)
    monkeypatch.setattr(providers, "_REGISTERED", set())
    monkeypatch.setattr(providers.ort, "register_execution_provider_library", lambda *_: None)
    monkeypatch.setattr(providers.ort, "get_ep_devices", lambda: [Device()])
    assert providers.register("made_up") == {}


def test_a_number_of_a_device_that_there_is_not_is_an_error(monkeypatch):
    monkeypatch.setattr(providers.ort, "get_ep_devices", lambda: [Device()])
    monkeypatch.setattr(providers, "_REGISTERED", {"MadeUpExecutionProvider"})
    options = providers.ort.SessionOptions()
    with pytest.raises(ProviderError, match=f"{PREFIX}DEVICE is 1, and MadeUp lists 1 here"):
        providers.session(b"", options, Provider("MadeUp", {}, 1), {})


def test_other_plug_ins_that_fail_are_an_error_only_where_they_are_asked_for(monkeypatch):
    module = providers.PLUGINS[0]
    monkeypatch.setitem(sys.modules, module, fake(module))
    monkeypatch.setattr(providers, "find_spec", lambda name: name == module or None)
    assert providers.chosen(planned()).name == "CPU"
    with pytest.raises(ProviderError, match=rf"madeup is none .* {module} could not be registered"):
        providers.chosen(planned(provider="madeup"))


def installed(monkeypatch, **versions):
    line = [
        SimpleNamespace(
            metadata={"Name": name.replace("_", "-")},
            version=number,
            read_text=lambda _: "onnxruntime/capi/x.so,,\nonnxruntime/__init__.py,sha256=1,2\n",
        )
        for name, number in versions.items()
    ]
    monkeypatch.setattr(builds, "distributions", lambda: line)
    builds.the_one.cache_clear()


def test_two_builds_in_one_environment_are_named_with_what_to_do(monkeypatch):
    installed(monkeypatch, onnxruntime="1.32.0", onnxruntime_gpu="1.31.1")
    with pytest.raises(BuildError) as caught:
        Backend().check()
    sentence = str(caught.value)
    assert "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are in one environment" in sentence
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in sentence
    assert sentence.endswith("[cuda]'")


def test_no_build_is_a_sentence_with_the_extra(monkeypatch, folder):
    installed(monkeypatch)
    with pytest.raises(BuildError, match=r"no build of ONNX Runtime .*pip install '.*\[cpu\]'"):
        backends(folder)


def test_the_build_that_is_here_is_found():
    name, number = builds.the_one().split()
    assert number == version(name)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("device_type=GPU", {"device_type": "GPU"}),
        (" a = b=c , d=e,", {"a": "b=c", "d": "e"}),
    ],
)
def test_provider_options_are_read(text, options):
    assert plan.options(text) == options


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PROVIDER_OPTIONS", "device_type", "write name=value"),
        ("DEVICE", "-1", "a device's number"),
        ("THREADS", "0", "a whole number from 1 on"),
        ("EXPORT", "../other", "a path inside the repository"),
    ],
)
def test_settings_that_are_wrong_are_named(set_, name, value, says):
    set_(name, value)
    with pytest.raises(SettingError, match=f"{PREFIX}{name} .*{says}"):
        plan.planned() if name != "EXPORT" else plan.export_setting()


def test_options_reach_the_provider(monkeypatch):
    taken = []
    monkeypatch.setattr(providers.ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(
        providers.ort,
        "InferenceSession",
        lambda *_, providers, **__: taken.append(providers) or Session("CUDA", nodes=("CUDA",)),
    )
    provider = providers.chosen(planned(provider="CUDA", options={"a": "b"}, device=1))
    assert provider.memory == ("cuda", 1)
    providers.session(b"", providers.ort.SessionOptions(), provider, {})
    assert taken == [[("CUDAExecutionProvider", {"device_id": "1", "a": "b"})]]


def test_tensorrt_keeps_its_engines_where_versions_and_device_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("EXO_HOME", str(tmp_path))
    monkeypatch.setattr(tensorrt, "version", lambda name: "10.9.0")
    monkeypatch.setattr(tensorrt, "_gpu", lambda device: f"H100-{device}")
    settings = tensorrt.compiled("Tensorrt", 1)
    place = settings["trt_engine_cache_path"]
    assert place.endswith(f"ort-{providers.ort.__version__}-trt-10.9.0-H100-1")
    assert settings["trt_timing_cache_path"] == place
    assert settings["trt_engine_cache_enable"] == settings["trt_timing_cache_enable"] == "True"
    assert tensorrt.compiled("CUDA", 0) == {}


def test_tensorrt_is_told_every_dynamic_input(folder):
    config = Config.from_folder(folder)
    model = graph.build(config, 0, config.layers - 1, Kind(16, True))
    shapes = {value.name: checkpoint._shape(value) for value in model.graph.input}
    dynamic = {name for name, shape in shapes.items() if any(isinstance(n, str) for n in shape)}
    caches = {f"{what}.{n}" for what in ("keys", "values") for n in range(4)}
    assert dynamic == {"x", "newest", *caches}
    settings = tensorrt.profiles(
        shapes, {"B": (1, 1, 1), "S": (1, 256, 256), "room": (1, 1024, 400)}
    )
    assert settings["trt_profile_max_shapes"].startswith("x:1x256x96,newest:1,keys.0:1x2x400x16,")
    assert {part.split(":")[0] for part in settings["trt_profile_min_shapes"].split(",")} == dynamic


@pytest.mark.parametrize(
    ("precision", "provider", "kind"),
    [
        ("", Provider("CPU", {}), Kind(32, False)),
        ("", Provider("CUDA", {}), Kind(16, True)),
        ("int8", Provider("CUDA", {}), Kind(8, True)),
        ("int4", Provider("OpenVINO", {}), Kind(4, False)),
    ],
)
def test_attention_decides_what_stands_between(precision, provider, kind):
    assert checkpoint.kind_of(precision, provider) == kind
    with pytest.raises(ProviderError):
        checkpoint.kind_of("float32" if provider.half else "float16", provider)


@pytest.mark.parametrize("listed", [False, True], ids=["1.24", "since 1.25.1"])
def test_a_plug_ins_provider_gets_its_device_whether_it_is_listed_or_not(monkeypatch, listed):
    """ONNX Runtime lists registered plug-ins since 1.25.1; by its name alone one is the CPU."""
    devices, sessions = [SimpleNamespace(ep_name="MadeUpExecutionProvider")], []
    names = ["CPUExecutionProvider", *(["MadeUpExecutionProvider"] if listed else [])]

    class Options:
        def add_session_config_entry(self, *entry):
            pass

        def add_provider_for_devices(self, devices, settings):
            sessions.append((devices, settings))

    def session(model, options, providers=None, **_):
        return Session("CPU") if providers else Session("MadeUp", "CPU", nodes=("MadeUp",))

    monkeypatch.setattr(providers, "_REGISTERED", {"MadeUpExecutionProvider"})
    monkeypatch.setattr(providers.ort, "get_ep_devices", lambda: devices)
    monkeypatch.setattr(providers.ort, "get_available_providers", lambda: names)
    monkeypatch.setattr(providers.ort, "InferenceSession", session)
    providers.session(b"", Options(), Provider("MadeUp", {"a": "b"}), {})
    assert sessions == [(devices, {"a": "b"})]
