"""The whole AnswerBackend of docs/bring-up.md runs as it stands there."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from kit.run import write_metadata

ROOT = Path(__file__).parents[1]

# What the example uses of llama-cpp-python: generate() gives ids one by one, for ever.
LLAMA = """
LLAMA_DEFAULT_SEED = 0xFFFFFFFF

class Llama:
    seeds = []
    def __init__(self, path, n_ctx, verbose):
        assert path.endswith("m.gguf") and n_ctx == 0 and verbose is False
    def n_ctx(self):
        return 40
    def set_seed(self, seed):
        self.seeds.append(seed)
    def generate(
        self, tokens, temp, top_p, top_k, min_p, repeat_penalty, frequency_penalty, presence_penalty
    ):
        assert (temp, top_p, top_k, min_p, repeat_penalty) == (0.0, 1.0, 0, 0.0, 1.0)
        assert (frequency_penalty, presence_penalty) == (0.0, 0.0)
        yield from [10, 11, 12] if len(tokens) > 3 else []
        while len(tokens) < 4:
            yield 10
        yield self.end
"""
WRITE = """
from pathlib import Path
from {package}.kit.llama.random_checkpoint import write_checkpoint

write_checkpoint(Path("model"))
Path("model/m.gguf").touch()
"""
ASK = """
import asyncio, llama_cpp
from pathlib import Path
from {package}.backend import Backend
from {package}.kit.contract import Layers, Request, RequestError, Sampling
from {package}.kit.engine.engine import Engine
from {package}.models import MODELS

model, folder = MODELS.table[0], Path("model")

class Source:
    model = MODELS.table[0]
    async def tokenizer(self): return folder
    async def files(self, patterns, layers, everything):
        assert patterns == ("*.gguf",)
        return folder

async def whole(engine, ids, most, **sampling):
    request = Request(f"r{{len(ids)}}", "x", ids, most, Sampling(**sampling))
    pieces = [p async for p in engine.answer(request)]
    return [i for p in pieces for i in p.ids], pieces[-1].finish

async def main():
    engine = Engine(Backend)
    await engine.load(Layers(model.id, 0, model.layers - 1, model.layers), Source())
    llama_cpp.Llama.end = engine.tokenizer.eos_token_id
    assert await whole(engine, (1, 2, 3, 4), 9) == ([10, 11, 12], "stop")
    assert await whole(engine, (1,), 9, seed=7) == ([10] * 9, "length")
    assert await whole(engine, (1, 2), 900) == ([10] * 38, "length")
    assert llama_cpp.Llama.seeds == [0xFFFFFFFF, 7, 0xFFFFFFFF]
    try:
        await whole(engine, tuple(range(40)), 9)
    except RequestError as error:
        assert "context of 40" in str(error)
    assert await engine.executor.check() == "llama-cpp-python 0.3.16"
    await engine.close()

asyncio.run(asyncio.wait_for(main(), 30))
"""


def test_the_example_answers(plugin_of: Callable[[str], Path], tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    shutil.copytree(plugin_of("numpy"), plugin)
    page = (ROOT / "docs/bring-up.md").read_text(encoding="utf-8")
    example = next(c for c in re.findall(r"```python\n(.*?)```", page, re.S) if "llama_cpp" in c)
    assert len(example.split("class Backend:")[1].splitlines()) <= 40
    package = next(path.parent for path in plugin.glob("*/backend.py"))
    (package / "backend.py").write_text(example, encoding="utf-8")
    (plugin / "llama_cpp").mkdir()
    (plugin / "llama_cpp/__init__.py").write_text(LLAMA, encoding="utf-8")
    info = plugin / "llama_cpp_python-0.3.16.dist-info/METADATA"
    info.parent.mkdir()
    info.write_text("Metadata-Version: 2.1\nName: llama-cpp-python\nVersion: 0.3.16\n")
    write_metadata(plugin)
    for code in (WRITE, ASK):
        command = [sys.executable, "-c", code.format(package=package.name)]
        done = subprocess.run(command, cwd=plugin, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
