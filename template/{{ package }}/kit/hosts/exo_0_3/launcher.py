"""exo 0.3's own command, with this plugin's engine and those of its neighbours in it.

Five things of exo are changed in this process, all in memory: where its supervisor begins a
runner's process, which folders it reads model cards from, what downloads our models, how its API
sends an answer that fails, and one environment variable. Other models go to exo's own functions.
"""

import argparse
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

from ....names import PACKAGE, PROJECT
from ... import logs
from ...plugin import Plugin
from . import api, compatibility
from .compatibility import HostError
from .place import place

GROUP = "exo_engine_template.plugins"
READ_ONLY = "EXO_MODELS_READ_ONLY_DIRS"
_log = logging.getLogger(__name__)


def installed() -> dict[str, EntryPoint]:
    """The plugins of this environment by their packages, none of them imported."""
    return {point.module.partition(".")[0]: point for point in entry_points(group=GROUP)}


def entrypoint(*args: Any, **named: Any) -> None:
    """What every runner's process begins with; exo pickles it by its name."""
    bootstrap: Any = import_module("exo.worker.runner.bootstrap")
    arguments = signature(bootstrap.entrypoint).bind(*args, **named).arguments
    name = arguments["bound_instance"].bound_shard.model_card.model_id
    point = installed().get(name.partition("/")[0])
    run: Any = bootstrap.entrypoint if point is None else point.load().entrypoint
    run(*args, **named)


def main(plugin: Plugin, argv: Sequence[str]) -> None:
    """Run exo with these arguments. Raises HostError, before anything of exo is changed."""
    options, rest = _parser().parse_known_args(argv)
    root = home() / "engine_plugins"
    # exo reads it at its import.
    ours = [str(root / name / "models") for name in installed()]
    os.environ[READ_ONLY] = ":".join([*ours, *filter(None, [os.environ.get(READ_ONLY)])])
    compatibility.require()
    if PACKAGE not in installed():
        raise HostError(f"{PROJECT} is not installed here: pip install it where exo is")
    logs.speak()
    plugins = staged(root)
    without_exo = not options.all_models and not has_mlx()
    _change(plugins, root, without_exo)
    model = options.place or (first_complete(plugin, root) if without_exo else None)
    if model not in (None, "none") and "--no-api" not in rest:
        arguments = (f"{PACKAGE}/{model.removeprefix(f'{PACKAGE}/')}", options.api_port)
        threading.Thread(target=place, args=arguments, name="place", daemon=True).start()
    sys.argv = ["exo", "--api-port", str(options.api_port), *rest]
    import_module("exo.main").main()


def _parser() -> argparse.ArgumentParser:
    """Our own options; all others are exo's, `--help` too."""
    parser = argparse.ArgumentParser(
        prog=f"{PROJECT} exo", add_help=False, allow_abbrev=False, argument_default=None
    )
    parser.add_argument("--all-models", action="store_true")
    parser.add_argument("--place", metavar="MODEL")
    parser.add_argument("--api-port", type=int, default=52415)
    return parser


def home() -> Path:
    """exo's cache folder, one a node (exo/shared/constants.py)."""
    if own := os.environ.get("EXO_HOME"):
        return Path.home() / own
    if sys.platform != "linux":
        return Path.home() / ".exo"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "exo"


def staged(root: Path) -> list[Any]:
    """The plugins whose models are offered. Raises HostError where the fault is this one's own."""
    plugins: list[Any] = []
    for package, point in installed().items():
        try:
            plugin = point.load()
            if plugin.protocol != Plugin.protocol:
                raise HostError(f"it has protocol {plugin.protocol}, not {Plugin.protocol}")
            lines = plugin.stage(root / package)
        except Exception as error:
            if package == PACKAGE:
                raise
            _log.warning("%s is left out: %s", package, logs.one_line(error))
            continue
        for line in lines:
            _log.info("%s", line)
        plugins.append(plugin)
    return plugins


def has_mlx() -> bool:
    """Whether exo's own models can run here; MLX is tried in a process of its own."""
    if find_spec("mlx") is None:
        return False
    command = [sys.executable, "-c", "import mlx.core"]
    return subprocess.run(command, capture_output=True).returncode == 0


def first_complete(plugin: Plugin, root: Path) -> str | None:
    """The id of the plugin's first model whose files are here."""
    folder = root / PACKAGE / "models"
    here = [m.id for m in plugin.models.table if (folder / f"{PACKAGE}--{m.id}").exists()]
    return here[0] if here else None


def _change(plugins: list[Any], root: Path, without_exo: bool) -> None:
    """Change exo, in this process."""
    main: Any = import_module("exo.main")
    folders: Any = import_module("exo.shared.models.model_cards")._BUILTIN_CARD_DIRS
    path = type(folders[0])
    if without_exo:
        _log.info("mlx is not here: exo's own models are left out (--all-models brings them back)")
        folders.clear()
    folders += [path(root / plugin.package / "cards") for plugin in plugins]
    make = main.exo_shard_downloader

    def exo_shard_downloader(*args: Any, **named: Any) -> Any:
        """exo's downloader, with each plugin's around it."""
        if without_exo:
            named["offline"] = True  # it has no models, and would ask the hub for our ids
        downloader = make(*args, **named)
        for plugin in plugins:
            downloader = plugin.downloader(downloader)
        return downloader

    main.exo_shard_downloader = exo_shard_downloader
    api.change([plugin.package for plugin in plugins])
    import_module("exo.worker.runner.supervisor").entrypoint = entrypoint  # type: ignore[attr-defined] # patched
