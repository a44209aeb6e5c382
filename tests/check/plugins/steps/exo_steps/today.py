"""What exo 0.3's launcher finds, in the template's protocol; imports nothing of exo at the top."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

CARD = """\
model_id = "exo_steps/tiny-steps"
n_layers = 4
hidden_size = 1
supports_tensor = false
tasks = ["TextGeneration"]
backends = ["MlxCpu"]
family = "steps"
[storage_size]
in_bytes = 1
"""


class Plugin:
    """One model."""

    protocol, package, family = 1, "exo_steps", "steps"

    def stage(self, root: Path) -> list[str]:
        (root / "cards").mkdir(parents=True, exist_ok=True)
        (root / "cards" / "tiny.toml").write_text(CARD)
        return []

    def downloader(self, inner: Any) -> Any:
        return inner

    def entrypoint(self, *arguments: Any) -> None:
        from exo.worker.runner import bootstrap

        from .today_engine import StepsBuilder

        for name, members in (
            ("patches", {"apply_mlx_patches": lambda: None}),
            ("builder", {"MlxBuilder": StepsBuilder}),
        ):
            module = ModuleType(f"exo.worker.engines.mlx.{name}")
            vars(module).update(members)
            sys.modules[module.__name__] = module
        bootstrap.entrypoint(*arguments)


PLUGIN = Plugin()
