"""A C library that plays each group of the runtime's versions, and a host in front of it."""

import asyncio
import shutil
import subprocess
from contextlib import aclosing
from pathlib import Path

import pytest
from serving import MODEL, MODEL_ID

from exo_kit.backend import Backend
from exo_kit.kit.contract import Layers, Request, Sampling
from exo_kit.kit.engine.engine import Engine
from exo_kit.kit.repository.files import find_tokenizer
from exo_kit.models import MODELS

COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
SOURCE = Path(__file__).with_name("runtime_double.c")
GROUPS = {"110": "1.1.4", "120": "1.2.0", "121": "1.2.3", "130": "1.3.0"}
PROMPT = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler makes the library")


def compiled(group, version, target, source=SOURCE):
    """Make a library of a group that tells this version, or none."""
    options = [f"-DGROUP={group}", *([f'-DVERSION="{version}"'] if version else [])]
    options += ["-I", Path(__file__).parent, "-o", target, source]
    subprocess.run([COMPILER, "-shared", "-fPIC", "-w", *options], check=True)


class Board:
    """A board's folder: models, a script of answers, a log of calls."""

    def __init__(self, folder, monkeypatch):
        self.models, self.log = folder / "models", folder / "log"
        self.script, self.setenv = folder / "script", monkeypatch.setenv
        self.models.mkdir()
        self.file = self.models / f"{MODEL.repository.split('/')[1]}_W8A8_RK3588.rkllm"
        self.file.write_bytes(b"RKLLM" + bytes(3000) + b"rkllm-toolkit version: 1.1.0\0")
        self.setenv("RKLLM_MODELS", str(self.models))
        self.setenv("DOUBLE_SCRIPT", str(self.script))
        self.setenv("DOUBLE_LOG", str(self.log))
        self.tokenizer = None

    def plays(self, *texts):
        """The answers, each as its ids; what is half a character is marked."""
        lines = []
        for text in texts:
            ids, words = self.tokenizer.encode(text), []
            for n, token in enumerate(ids):
                half = self.tokenizer.decode(ids[: n + 1]).endswith("\ufffd")
                words.append(f"{'~' if half else ''}{token}")
            lines.append(" ".join(words))
        self.script.write_text("\n".join(lines) + "\n")

    def calls(self, kind):
        """The calls of a kind, as their words."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.split()[0] == kind]


class Host:
    """Loads and asks as a host does."""

    def __init__(self):
        self.model, self.engine = MODELS.by_id[MODEL_ID], Engine(Backend)

    async def tokenizer(self):
        return find_tokenizer(self.model.repository)

    async def files(self, *_):
        raise AssertionError("the runtime's files are the board's")

    async def load(self, board=None, model_id=None):
        total = self.model.layers
        await self.engine.load(Layers(model_id or self.model.id, 0, total - 1, total), self)
        if board is not None:
            board.tokenizer = self.engine.tokenizer

    def pieces(self, name, prompt=PROMPT, most=400, **sampling):
        ids = tuple(self.engine.tokenizer.encode(prompt))
        return self.engine.answer(Request(name, prompt, ids, most, Sampling(**sampling)))

    async def whole(self, name, *arguments, **named):
        async with asyncio.timeout(30):
            async with aclosing(self.pieces(name, *arguments, **named)) as pieces:
                pieces_read = [piece async for piece in pieces]
        return "".join(piece.text for piece in pieces_read), pieces_read[-1]

    async def leave(self, name, **named):
        """Go away after the first piece with a text."""
        async with aclosing(self.pieces(name, **named)) as pieces:
            async for piece in pieces:
                if piece.text:
                    return piece.text
