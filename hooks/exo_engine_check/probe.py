"""Runs in a process of its own, on any Python that may have exo: loads a plugin and drives it.

It uses the standard library, NumPy and exo alone, and writes what it sees to a file, one line of
JSON an event, so that nothing that the plugin prints can spoil it.

    python probe.py request.json events.jsonl
"""

import asyncio
import copy
import functools
import gc
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Failures = dict[tuple[str, str], BaseException]

GROUPS = ("exo.inference_engines", "exo.models", "exo.device_detectors")
MAX_THREADS = 64
MAX_FORKS = 6
MAX_PROCESSES = 32
IMPORT_SECONDS = 1.0
DETECT_SECONDS = 1.0
STEPS = 6
TINY = "exo-engine-check-tiny"
HEAVY = ("jax", "mlx", "onnxruntime", "openvino", "tensorflow", "torch", "transformers", "vllm")


class Probe:
    """Writes events; knows which step is under way."""

    def __init__(self, request: dict[str, Any], events: str) -> None:
        self.request, self.events = request, events
        self.process = os.getpid()
        self.crowd = ""
        self.package = request["package"]

    def write(self, **event: object) -> None:
        if os.getpid() != self.process:
            os._exit(0)  # a copy of this process that the plugin has forked
        with open(self.events, "a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")

    def step(self, name: str) -> None:
        self.write(step=name)

    def fault(self, check: str, message: str, error: BaseException | None = None) -> None:
        path, line = self._where(error)
        self.write(check=check, message=message, path=path, line=line)

    def _where(self, error: BaseException | None) -> tuple[str, int]:
        """The last line of the plugin's own files that an error went through."""
        found = ("", 0)
        while error is not None and not found[0]:
            for frame in traceback.extract_tb(error.__traceback__):
                if self.owns(frame.filename):
                    found = (frame.filename, frame.lineno or 0)
            if isinstance(error, SyntaxError) and error.filename and self.owns(error.filename):
                found = (error.filename, error.lineno or 0)
            error = error.__cause__ or error.__context__
        return found

    def owns(self, file: str) -> bool:
        return os.path.realpath(file).startswith(os.path.realpath(self.request["folder"]) + os.sep)

    def attempt(
        self, check: str, what: str, function: Callable[..., Any], *args: Any
    ) -> tuple[bool, Any]:
        """Call something of the plugin's; a failure is a fault. Returns (worked, result)."""
        self.step(what)
        try:
            return True, function(*args)
        except SystemExit as error:
            self.fault("EX904", f"{what} ends the process with sys.exit({error.code!r})", error)
        except ModuleNotFoundError as error:
            name = error.name or ""
            if name.partition(".")[0] == self.package:
                self.fault(check, f"{what} fails: {error}", error)
            else:
                path, line = self._where(error)
                message = f"{what} fails: {error}"
                self.write(missing=name, check=check, message=message, path=path, line=line)
        except BaseException as error:
            self.fault(check, f"{what} fails: {describe(error)}", error)
        return False, None


def describe(error: BaseException) -> str:
    """An error's kind and its first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def guard_crowds(probe: Probe) -> None:
    """Refuse threads and processes beyond a number that no plugin needs."""
    counts = {"forks": 0, "processes": 0}

    def refuse(kind: str, count: int) -> None:
        if not probe.crowd:
            probe.crowd = kind
            probe.fault("EX905", f"the plugin started more than {count} {kind}")
        raise RuntimeError(f"more than {count} {kind}")

    def hook(event: str, _: object) -> None:
        if event in {"os.fork", "os.forkpty"}:
            counts["forks"] += 1
            if counts["forks"] > MAX_FORKS:
                refuse("forks", MAX_FORKS)
        elif event in {"subprocess.Popen", "os.posix_spawn", "os.system", "os.exec"}:
            counts["processes"] += 1
            if counts["processes"] > MAX_PROCESSES:
                refuse("processes", MAX_PROCESSES)

    start = threading.Thread.start

    @functools.wraps(start)
    def bounded_start(thread: threading.Thread) -> None:
        if threading.active_count() > MAX_THREADS:
            refuse("threads", MAX_THREADS)
        return start(thread)

    # Python 3.11 has no audit event for a new thread.
    setattr(threading.Thread, "start", bounded_start)  # noqa: B010 - mypy knows its type
    sys.addaudithook(hook)


def find_host(probe: Probe) -> None:
    """Put the stand-in on the path where this Python has no exo with plugins; say which it is."""
    try:
        found = importlib.util.find_spec("exo.inference.plugin_discovery")
    except Exception:  # whatever a foreign module called exo does at its import
        found = None
    if found is None:
        for name in [n for n in sys.modules if n.partition(".")[0] == "exo"]:
            del sys.modules[name]
        sys.path.insert(0, probe.request["standin"])
        importlib.invalidate_caches()
    probe.write(host="real" if found else "stand-in")


def hush(function: Callable[[], Any]) -> Any:
    """Call exo's own code with stdout closed: what exo prints is not the plugin's."""
    sys.stdout.flush()
    kept, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        return function()
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(null)


def only_this_plugin(probe: Probe, failures: Failures) -> None:
    """Hide other plugins of this environment, and keep why an entry point can't be loaded."""
    everything: Any = importlib.metadata.entry_points
    wanted = {(e["group"], e["name"], e["value"]) for e in probe.request["entry_points"]}
    load = importlib.metadata.EntryPoint.load

    def entry_points(**params: Any) -> Any:
        found = everything(**params)
        if not str(params.get("group", "")).startswith("exo."):
            return found
        kept: dict[tuple[str, str], Any] = {}
        for entry in found:
            if (entry.group, entry.name, entry.value) in wanted:
                kept.setdefault((entry.group, entry.name), entry)
        return importlib.metadata.EntryPoints(kept.values())

    def loading(entry: importlib.metadata.EntryPoint) -> Any:
        try:
            return load(entry)
        except BaseException as error:
            failures[entry.group, entry.name] = error
            raise

    importlib.metadata.entry_points = entry_points
    setattr(importlib.metadata.EntryPoint, "load", loading)  # noqa: B010 - mypy knows its type


def forget(package: str) -> None:
    """Drop the plugin's modules, so that the next import runs them again."""
    for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
        del sys.modules[name]
    importlib.invalidate_caches()


def entries(probe: Probe, group: str) -> list[dict[str, str]]:
    return [entry for entry in probe.request["entry_points"] if entry["group"] == group]


def time_imports(probe: Probe) -> bool:
    """Import what discovery imports, before anything of exo is loaded; quick and light?"""
    before = set(sys.modules)
    started = time.perf_counter()
    for group in GROUPS[1:]:
        for entry in entries(probe, group):
            module = entry["value"].partition(":")[0]
            worked, _ = probe.attempt(
                "EX901", f"importing {module}", importlib.import_module, module
            )
            if not worked:
                return False
    seconds = time.perf_counter() - started
    if seconds > IMPORT_SECONDS:
        probe.fault("EX908", f"models and detectors take {seconds:.1f} s to import")
    new = {name.partition(".")[0] for name in set(sys.modules) - before}
    for name in sorted(new & {"exo", *HEAVY}):
        probe.fault("EX908", f"models and detectors import {name}")
    forget(probe.package)
    return True


def check_discovery(probe: Probe, failures: Failures) -> bool:
    """What exo's own functions find."""
    discovery = importlib.import_module("exo.inference.plugin_discovery")
    for entry in entries(probe, GROUPS[0]):
        probe.step("exo's discovery of engines")
        try:
            found = discovery.discover_inference_engines().get(entry["name"])
        except Exception as error:
            probe.fault("EX906", f"exo's discovery of engines fails: {describe(error)}")
            return False
        module, _, name = entry["value"].rpartition(":")
        if found is None or tuple(found[:2]) != (module, name):
            other = f"gives {found[0]}:{found[1]}" if found else "gives nothing"
            probe.fault("EX906", f"exo's discovery of the engine {entry['name']} {other}")
            return False
    check_models(probe, discovery, failures)
    return True


def check_models(probe: Probe, discovery: Any, failures: Failures) -> None:
    """Merge the plugin's cards while exo.models is being imported, as exo does."""
    plain = discovery.discover_models
    discovery.discover_models = dict
    before = copy.deepcopy(hush(lambda: importlib.import_module("exo.models")).model_cards)
    del sys.modules["exo.models"]
    discovery.discover_models = plain
    worked, models = probe.attempt(
        "EX906",
        "importing exo.models with the plugin's models",
        importlib.import_module,
        "exo.models",
    )
    if not worked:
        return
    for entry in entries(probe, GROUPS[1]):
        error = failures.get((entry["group"], entry["name"]))
        if error is not None:
            message = f"exo drops the models {entry['name']}: {describe(error)}"
            probe.fault("EX904" if isinstance(error, SystemExit) else "EX906", message, error)
            continue
        cards = _value(entry)
        if not isinstance(cards, dict):
            kind = type(cards).__name__
            probe.fault(
                "EX906", f"exo drops the models {entry['name']}: they are a {kind}, no dict"
            )
            continue
        for name in sorted(cards.keys() - models.model_cards.keys()):
            probe.fault("EX909", f"the model {name} is not among exo's models")
    for name, card in before.items():
        now = models.model_cards.get(name)
        if now != card:
            probe.fault("EX909", f"exo's own card of {name} is lost")


def _value(entry: dict[str, str]) -> Any:
    module, _, name = entry["value"].rpartition(":")
    return getattr(sys.modules.get(module) or importlib.import_module(module), name, None)


def check_detectors(probe: Probe) -> None:
    """Each detector twice."""
    for entry in entries(probe, GROUPS[2]):
        what = f"the detector {entry['name']}"
        worked, detector = probe.attempt("EX901", f"importing {what}", _value, entry)
        if not worked:
            continue
        if not callable(detector):
            probe.fault("EX906", f"{what} can't be called")
            continue
        answers = []
        for _ in range(2):
            started = time.perf_counter()
            worked, answer = probe.attempt("EX910", what, detector)
            seconds = time.perf_counter() - started
            if not worked:
                break
            answers.append(answer)
            if seconds > DETECT_SECONDS:
                probe.fault("EX910", f"{what} takes {seconds:.1f} s")
                break
        for answer in answers[:1]:
            if not (answer is None or (isinstance(answer, str) and answer)):
                probe.fault("EX910", f"{what} gives {shorten(answer)}, no name and not None")
        if len(answers) == 2 and not same(*answers):
            both = f"{shorten(answers[0])} and then {shorten(answers[1])}"
            probe.fault("EX910", f"{what} gives {both}")


def same(one: object, other: object) -> bool:
    try:
        return bool(one == other)
    except Exception:
        return False


def shorten(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) < 80 else text[:77] + "..."


def make_downloader(folder: str) -> Any:
    """exo's downloader, for a model that lies in a folder already."""
    base: Any = importlib.import_module("exo.download.shard_download").NoopShardDownloader

    class Local(base):  # type: ignore[misc]  # exo has no types
        async def ensure_shard(self, shard: Any, inference_engine_name: str) -> Path:
            return Path(folder)

    return Local()


def check_engines(probe: Probe) -> list[tuple[str, Callable[[], Any]]]:
    """Load each engine as exo does; returns their classes' names, and what makes them."""
    load = importlib.import_module("exo.inference.plugin_discovery").load_inference_engine
    made: list[tuple[str, Callable[[], Any]]] = []
    for entry in entries(probe, GROUPS[0]):
        module, _, name = entry["value"].rpartition(":")
        worked, _ = probe.attempt("EX901", f"importing {module}", importlib.import_module, module)
        if not worked:
            continue
        downloader = make_downloader(probe.request["model_folder"])
        make = functools.partial(load, entry["name"], downloader)
        worked, engine = probe.attempt("EX907", f"loading the engine {entry['name']}", make)
        if not worked:
            continue
        kind = type(engine)
        wanted = getattr(sys.modules[module], name)
        if kind is not wanted:
            message = f"exo loads {kind.__module__}.{kind.__qualname__} as {entry['name']}"
            probe.fault("EX907", message)
            continue
        for name in ("ensure_shard", "shard", "shard_downloader"):
            if not hasattr(engine, name):
                probe.fault("EX912", f"{kind.__name__} has no {name} when it is made")
        check_calls(probe, engine)
        made.append((kind.__name__, make))
    return made


def check_calls(probe: Probe, engine: Any) -> None:
    """Would the methods take what exo gives?"""
    for name, count in probe.request["calls"].items():
        named = {"temp": 0.0} if name == "sample" else {}
        try:
            signature = inspect.signature(getattr(engine, name))
        except (AttributeError, TypeError, ValueError):
            continue  # a missing method is told by others, a compiled one can't be asked
        try:
            signature.bind(*range(count), **named)
        except TypeError as error:
            probe.fault("EX912", f"{name}{signature} can't be called as exo does: {error}")


def check_offers(probe: Probe, classes: list[str]) -> None:
    """Whether exo offers each of the plugin's models to an engine of the plugin's."""
    models = importlib.import_module("exo.models")

    def offered(name: str) -> bool:
        return any(models.build_full_shard(name, kind) is not None for kind in classes)

    for entry in entries(probe, GROUPS[1]):
        cards = _value(entry)
        for name in cards if isinstance(cards, dict) else ():
            worked, found = probe.attempt("EX906", f"exo's offer of {name}", offered, name)
            if worked and not found:
                card, owners = shorten(cards[name]), " or ".join(classes)
                probe.fault("EX906", f"exo offers the model {name} to no {owners}: {card}")


def check_metrics(probe: Probe) -> None:
    """Import the engine's module anew: are its metrics ready for that?"""
    if "prometheus_client" not in sys.modules:
        return
    for entry in entries(probe, GROUPS[0]):
        module = entry["value"].rpartition(":")[0]
        forget(probe.package)
        what = f"importing {module} a second time"
        probe.attempt("EX911", what, importlib.import_module, module)


class Driver:
    """Drives engines as nodes of exo do."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make: Callable[[], Any] = make
        self.np: Any = importlib.import_module("numpy")
        self.shard: Any = importlib.import_module("exo.inference.shard").Shard

    def halves(self, model: str, layers: int) -> list[Any]:
        half = layers // 2
        return [self.shard(model, 0, half - 1, layers), self.shard(model, half, layers - 1, layers)]

    def wire(self, array: Any) -> Any:
        """What a peer gets: read-only, and only dtypes with a name of NumPy's."""
        received = self.np.frombuffer(array.tobytes(), dtype=self.np.dtype(str(array.dtype)))
        return received.reshape(array.shape)

    async def answer(self, shards: list[Any]) -> list[int]:
        """The ids of one answer over one node or two."""
        engines = [self.make() for _ in shards]
        if engines[0].shard is not None:
            raise ValueError(f"shard is {shorten(engines[0].shard)} before the first one, not None")
        state: dict[str, Any] = {}
        loading = asyncio.ensure_future(engines[0].ensure_shard(shards[0]))
        x, back = await engines[0].infer_prompt("request", shards[0], "Hello, exo", state)
        await loading
        self.untouched(back)
        x = await self.through(engines[1:], shards[1:], x, state)
        ids: list[int] = []
        while True:
            token = await engines[-1].sample(x, temp=0.0)
            await engines[-1].ensure_shard(shards[-1])
            number = token.item()
            if not isinstance(number, int):
                raise TypeError(f"sample() gives {shorten(number)}, no token id")
            ids.append(number)
            end = engines[-1].tokenizer.eos_token_id
            if number == end or len(ids) == STEPS:
                text = engines[-1].tokenizer.decode(ids)
                if not isinstance(text, str):
                    raise TypeError(f"tokenizer.decode() gives {shorten(text)}, no text")
                return ids
            x = self.wire(token.reshape(1, -1))
            x, back = await engines[0].infer_tensor("request", shards[0], x, state)
            self.untouched(back)
            x = await self.through(engines[1:], shards[1:], x, state)

    def untouched(self, state: object) -> None:
        if state:
            raise ValueError(
                f"inference_state comes back as {shorten(state)}, not as it was: empty"
            )

    async def through(self, engines: list[Any], shards: list[Any], x: Any, state: Any) -> Any:
        for engine, shard in zip(engines, shards, strict=True):
            x, back = await engine.infer_tensor("request", shard, self.wire(x), state)
            self.untouched(back)
        return x


def tiny_model(probe: Probe) -> tuple[str, int] | None:
    """Let the plugin write its tiny model; returns (model id, layers) or None."""
    value = probe.request["tiny_model"]
    module, _, name = value.partition(":")
    folder = Path(probe.request["model_folder"])
    folder.mkdir(parents=True, exist_ok=True)

    def write() -> Any:
        return getattr(importlib.import_module(module), name)(folder)

    worked, model = probe.attempt("EX912", f"tiny-model {value}", write)
    if not worked:
        return None
    known = (
        importlib.import_module("exo.models").model_cards.get(model, {})
        if isinstance(model, str)
        else {}
    )
    layers = known.get("layers")
    config = folder / "config.json"
    if layers is None and config.is_file():
        layers = json.loads(config.read_text(encoding="utf-8")).get("num_hidden_layers")
    if not isinstance(layers, int) or layers < 1:
        message = "writes no config.json with num_hidden_layers, and names no model of the plugin"
        probe.fault("EX912", f"tiny-model {value} {message}")
        return None
    return (model if isinstance(model, str) and known else TINY), layers


def drive(probe: Probe, class_name: str, make: Callable[[], Any]) -> None:
    """One answer on one node, then on two."""
    found = tiny_model(probe)
    if found is None:
        return
    models = importlib.import_module("exo.models")
    model, layers = found
    models.model_cards[model] = {"layers": layers, "repo": {class_name: "exo-engine-check/tiny"}}
    driver = Driver(make)
    whole = driver.shard(model, 0, layers - 1, layers)
    worked, alone = run_answer(probe, driver, "EX912", "an answer on one node", [whole])
    if not worked or layers < 2:
        return
    shards = driver.halves(model, layers)
    worked, together = run_answer(probe, driver, "EX913", "an answer on two nodes", shards)
    if worked and together != alone:
        probe.fault("EX913", f"two nodes give {together}, one gives {alone}")
    probe.write(driven=len(alone))


def run_answer(
    probe: Probe, driver: Driver, check: str, what: str, shards: list[Any]
) -> tuple[bool, Any]:
    return probe.attempt(check, what, lambda: asyncio.run(driver.answer(shards)))


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        request = json.load(file)
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]
    probe = Probe(request, sys.argv[2])
    sys.path[:0] = request["path"]
    guard_crowds(probe)
    failures: Failures = {}
    find_host(probe)
    only_this_plugin(probe, failures)
    if time_imports(probe):
        worked, _ = probe.attempt(
            "EX906",
            "importing exo",
            lambda: hush(lambda: importlib.import_module("exo.inference.inference_engine")),
        )
        if worked and check_discovery(probe, failures):
            check_detectors(probe)
            made = check_engines(probe)
            if made:
                check_offers(probe, [name for name, _ in made])
            if made and request["tiny_model"]:
                drive(probe, *made[0])
            check_metrics(probe)
    gc.collect()
    sys.stdout.flush()
    probe.write(done=True)
    os._exit(0)  # threads of the plugin's must not keep this process


if __name__ == "__main__":
    main()
