"""Copies of the rendered plugin with a toy for a device, for processes of their own."""

import json
import shutil
from pathlib import Path

from node_0_3 import Node, path
from toy import write_tokenizer

import exo_kit

PLUGIN = Path(exo_kit.__file__).parent
MODEL = "exo_kit/toy"

MODELS = """
from .kit.cards import Model, cards
MODELS = cards(Model("toy", "Toy 1M", "organization/toy", 2))
"""
# The toy counts up: after n comes n + 1. It says to a file what is done with it.
BACKEND = """
import os, time
from toy import ToyBackend, ToyMany

def note(word):
    with open(os.environ["TOY_NOTES"], "a") as file:
        file.write(word + "\\n")

class Backend(ToyBackend):
    def load(self, layers, folder, tokenizer):
        note("load")
        super().load(layers, folder, tokenizer)

    def close(self):
        note("close")

    def forget(self, request_id):
        note("forget " + request_id)
        super().forget(request_id)
"""

# But for what is called "fast"; and "bad" fails.
SLOW = """
class Backend(Backend):
    def step(self, request_id, x):
        if request_id == "bad":
            raise RuntimeError("the toy\\nis broken")
        time.sleep(0.0 if request_id.startswith("fast") else 0.05)
        logits = super().step(request_id, x)
        logits[..., 1:27] += 2.0 * (logits[..., 27:].sum() > 0)  # never an end
        return logits
"""

READS = """
class Backend(Backend):
    files = ("*.json", "*.safetensors")
"""


def make(folder: Path, backend: str = "", package: str = "exo_kit", models: str = MODELS) -> Path:
    """A plugin of this package in a folder of its own, which is to be on PYTHONPATH."""
    root = folder / package
    shutil.copytree(PLUGIN, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    (root / package / "backend.py").write_text(BACKEND + backend)
    (root / package / "models.py").write_text(models)
    [metadata] = PLUGIN.parent.glob("exo_kit-*.dist-info")
    shutil.copytree(metadata, root / metadata.name.replace("exo_kit", package))
    if package != "exo_kit":
        engine = package.removeprefix("exo_")
        names = root / package / "names.py"
        text = names.read_text().replace("exo_kit", package).replace('"kit"', f'"{engine}"')
        names.write_text(text.replace("exo-kit", package.replace("_", "-")))
        points = root / metadata.name.replace("exo_kit", package) / "entry_points.txt"
        points.write_text(points.read_text().replace("exo_kit", package))
    write_tokenizer("organization/toy")
    return root


def begin(exo: Node, task: str, content: str = "a", **params: object) -> None:
    """Ask for a streamed answer; of the likeliest tokens, as one drawn by chance may end soon."""
    messages = [{"role": "user", "content": content}]
    exo.send(ask=task, chat_template_messages=messages, temperature=0.0, stream=True, **params)


def python_path(*plugins: Path) -> str:
    """A PYTHONPATH with these, and not with the plugin that they are copies of."""
    tests = PLUGIN.parent / "tests"
    own = [str(tests), str(tests / "kit"), str(tests / "kit" / "exo_0_3")]
    rest = [each for each in path().split(":") if Path(each) != PLUGIN.parent]
    return ":".join([*map(str, plugins), *own, *rest])


def write_model(folder: Path, **config: object) -> Path:
    """A toy's files in a folder."""
    shutil.copytree(write_tokenizer("organization/toy"), folder)
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 2} | config))
    (folder / "model.safetensors").write_bytes(b"x" * 1000)
    return folder
