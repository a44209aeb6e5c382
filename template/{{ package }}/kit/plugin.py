"""What a plugin hands to the kit, which looks for nothing of its owner's by itself."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..names import ENGINE_NAME
from .cards import Cards
from .contract import Backend


@dataclass(frozen=True)
class Plugin:
    """A plugin's package, its models, and how its backend is imported.

    load_backend: imports backend.py when it is called: without the device's SDK, the command and
    exo's own processes still run, and only a process that computes imports it.

    The entry-point group exo_engine_template.plugins names one of these. What a launcher of exo
    0.3, of whichever plugin and commit of the template, uses of it is protocol 1: package, family,
    stage(), downloader() and entrypoint().
    """

    package: str
    load_backend: Callable[[], Backend]
    models: Cards

    protocol: ClassVar[int] = 1
    family: ClassVar[str] = ENGINE_NAME  # on the cards of its models, which are <package>/<id>

    def stage(self, root: Path) -> list[str]:
        """Write root/cards/*.toml and root/models/<package>--<id>; a line on each model.

        Raises HostError where the backend can't be imported.
        """
        from .hosts.exo_0_3.jobs import run

        return run(self, "stage", root)

    def downloader(self, inner: Any) -> Any:
        """A ShardDownloader of exo's for these models, that leaves all others to `inner`."""
        from .hosts.exo_0_3.downloads import Downloader

        return Downloader(self, inner)

    def entrypoint(self, *args: Any, **named: Any) -> None:
        """What the process of one of these models begins with, as exo calls it."""
        from .hosts.exo_0_3.process import run

        run(self, *args, **named)
