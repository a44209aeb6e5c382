"""EX9: what `--import` saw in a process of its own; without it these checks are skipped."""

from collections.abc import Iterator

from ..findings import Check, Finding, reports

Seen = dict[str, list[Finding]]


class Imported(Check):
    family = "exo-import"


def _seen(exo_import: Seen | None, name: str) -> Iterator[Finding]:
    yield from (exo_import or {}).get(name, [])


class EX901(Imported):
    "The plugin survives being imported and used"

    @reports
    def check(exo_import: Seen | None) -> Iterator[Finding]:
        """
        An error in models or detectors loses them without a word (plugin_discovery.py:117,141), one
        in the engine ends exo's start (plugin_discovery.py:184), and a crash takes the node with
        it. The line is the last one in the plugin's own files.
        """
        yield from _seen(exo_import, "EX901")


class EX902(Imported):
    "Everything ends in time"

    @reports
    def check(exo_import: Seen | None) -> Iterator[Finding]:
        """
        exo imports and asks the plugin on its event loop's thread (plugin_discovery.py:184,
        node.py:382): what hangs there hangs the node. Give whatever waits a limit, and do it when a
        shard is loaded. `--timeout` sets how long the check waits.
        """
        yield from _seen(exo_import, "EX902")


class EX903(Imported):
    "Nothing is written to stdout"

    @reports
    def check(exo_import: Seen | None) -> Iterator[Finding]:
        """
        stdout belongs to exo: `exo run` prints its answer there (main.py:254), and the terminal
        view is drawn over it. Use `logging`.
        """
        yield from _seen(exo_import, "EX903")


class EX904(Imported):
    "The plugin does not end the process"

    @reports
    def check(exo_import: Seen | None) -> Iterator[Finding]:
        """
        `sys.exit` is no Exception: exo's `except Exception` lets it through
        (plugin_discovery.py:117,141), and the node ends. Raise an error with a sentence instead.
        """
        yield from _seen(exo_import, "EX904")


class EX905(Imported):
    "The plugin starts no crowd of threads or processes"

    @reports
    def check(exo_import: Seen | None) -> Iterator[Finding]:
        """
        Every start of exo imports the plugin, on every node (plugin_discovery.py:109-112). Start
        threads and processes when a shard is loaded, and a bounded number of them.
        """
        yield from _seen(exo_import, "EX905")


class EX906(Imported):
    "exo's discovery finds the engine, its models and its detector"

    @reports
    def check(exo_import: Seen | None) -> Iterator[Finding]:
        """
        This is what exo's own functions give (plugin_discovery.py:78,100,124), for the models while
        `exo.models` is being imported (models.py:165-168). What they leave out, exo does not have.
        """
        yield from _seen(exo_import, "EX906")


class EX907(Imported):
    "exo loads the plugin's own class"

    @reports
    def check(exo_import: Seen | None) -> Iterator[Finding]:
        """
        `load_inference_engine(name, shard_downloader)` (plugin_discovery.py:153) must give the
        class that the entry point names, and no built-in engine of the same name.
        """
        yield from _seen(exo_import, "EX907")


class EX908(Imported):
    "Discovery's imports are quick and light"

    @reports
    def check(exo_import: Seen | None) -> Iterator[Finding]:
        """
        Every start of exo pays for them, whichever engine is used (plugin_discovery.py:109-112,
        133-136). Import libraries inside the functions that need them.
        """
        yield from _seen(exo_import, "EX908")


class EX909(Imported):
    "The model cards merge without loss"

    @reports
    def check(exo_import: Seen | None) -> Iterator[Finding]:
        """
        exo puts the plugin's cards over its own with `dict.update` (models.py:168): a card with an
        id of exo's takes the place of that one, and exo's engines lose the model. Use ids of your
        own.
        """
        yield from _seen(exo_import, "EX909")


class EX910(Imported):
    "The detector answers within a second, and twice the same"

    @reports
    def check(exo_import: Seen | None) -> Iterator[Finding]:
        """
        exo's type of a detector is `Callable[[], Optional[str]]` (plugin_discovery.py:124), asked
        when a node starts. Give a name or None, at once, without an error, and the same again.
        """
        yield from _seen(exo_import, "EX910")


class EX911(Imported):
    "The metrics can be registered twice"

    @reports
    def check(exo_import: Seen | None) -> Iterator[Finding]:
        """
        A module is imported anew after a failed import, and exo registers metrics in the same
        registry (prometheus_metrics.py:15). A second registration of a name is a ValueError,
        "Duplicated timeseries": catch it, and use a metric that is not registered.
        """
        yield from _seen(exo_import, "EX911")


class EX912(Imported):
    "The engine answers as exo drives it"

    @reports
    def check(exo_import: Seen | None) -> Iterator[Finding]:
        """
        One answer in exo's order: `ensure_shard` and `infer_prompt` at once (main.py:210,
        node.py:214), `sample(result, temp=…)` and `item()` (node.py:128-130), then `infer_tensor`
        for each token (node.py:382). The model is the one that `tiny-model` in `[tool.exo-engine]`
        writes.
        """
        yield from _seen(exo_import, "EX912")


class EX913(Imported):
    "Two nodes give what one gives"

    @reports
    def check(exo_import: Seen | None) -> Iterator[Finding]:
        """
        A cluster splits the layers, tensors arrive read-only (grpc_server.py:82) and the state must
        stay empty (grpc_peer_handle.py:203). The same prompt on two halves must give the same
        tokens as on one node.
        """
        yield from _seen(exo_import, "EX913")
