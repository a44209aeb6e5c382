"""The stand-ins of plugins' tests and of the checker have what exo has, where they have it.

Nothing of exo runs here but the import of its modules: no node, no namespace.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, render_into
from host_0_0 import EXO_PYTHON, WHY_NOT
from standins import differences, modules

EXO_0_3_PYTHON = os.environ.get("EXO_0_3_PYTHON", "")
STAND_IN = REPOSITORY / "template/tests/standin"
STAND_IN_0_3 = REPOSITORY / "template/tests/standin_0_3"
NODE = REPOSITORY / "hooks/exo_engine_check/standin_node"

OURS_0_0 = {
    "exo.inference.builtin": "one module for exo's own engines, each of which has its own in exo",
    "Key": "a type variable",
    "Value": "a type variable",
    "FastTokenizer": "transformers' class, which its test here compares by what it gives",
    "Response": "aiohttp's class: the API has no web server",
    "ChatGPTAPI.__init__": "made by tests, with the tokenizer that requests are to have",
    "ShardDownloader.get_shard_download_status": "abstract; all of exo's are generators",
}
OURS_0_3 = {
    "exo.records": "one module for records, which are compared where exo has them",
    "T": "a type variable",
    "BoundInstance": "exo makes it, of an instance and ids; a plugin reads bound_shard",
    "TextGeneration": "exo makes it; a plugin reads its id and its parameters",
    "MpSender.__init__": "exo's processes are handed one",
    "MpReceiver.__init__": "exo's processes are handed one",
    "MpReceiver.send": "inherited, and not used",
    "MpReceiver.reader": "for the node that is played",
    "MpReceiver.receive": "block is for the node that is played",
    "mp_channel": "exo's is a class that is called",
    "Runner.__init__": "made by entrypoint(), which is exo's own",
    "RunnerSupervisor": "played: a plugin replaces the entrypoint that it looks up alone",
    "HubDownloader": "the node that is played",
    "Node": "the node that is played",
    "cards": "the node that is played",
    "say": "the node that is played",
}
TOKENIZER = """
import asyncio, json, sys
import numpy as np
from exo.inference.tokenizers import resolve_tokenizer

t = asyncio.run(resolve_tokenizer(sys.argv[1]))
text = "Köln, 7 + 5 ="
ids = t.encode(text)
talk = [{"role": "user", "content": "Hi"}]
print(json.dumps({
    "encode": [type(ids).__name__, ids],
    "decode": [t.decode(ids), t.decode(np.array(ids)), t.decode(ids[0])],
    "special": [t.decode([65, t.eos_token_id], skip_special_tokens=s) for s in (False, True)],
    "eos": [t.eos_token, t.eos_token_id, t.bos_token_id, len(t), t.vocab_size],
    "call": dict(t("ab"))["input_ids"],
    "ids": t.convert_tokens_to_ids("a"),
    "template": [
        t.apply_chat_template(talk, tokenize=False, add_generation_prompt=True),
        t.apply_chat_template(talk, tokenize=False),
    ],
}))
"""


@pytest.mark.skipif(not EXO_PYTHON, reason=WHY_NOT)
def test_what_stands_in_for_exo_0_0_is_as_in_exo() -> None:
    assert differences(EXO_PYTHON, [STAND_IN, NODE], OURS_0_0) == []


@pytest.mark.skipif(not EXO_0_3_PYTHON, reason="EXO_0_3_PYTHON is not set to exo 0.3's Python")
def test_what_stands_in_for_exo_0_3_is_as_in_exo() -> None:
    assert differences(EXO_0_3_PYTHON, [STAND_IN_0_3], OURS_0_3) == []


@pytest.mark.skipif(not EXO_PYTHON, reason=WHY_NOT)
def test_a_tokenizer_gives_what_exos_gives(template: Path, tmp_path: Path) -> None:
    plugin = render_into(template, tmp_path / "exo-myengine", variant="numpy")
    write = "from pathlib import Path; from exo_myengine.kit.llama.random_checkpoint import *; "
    write += "write_checkpoint(Path('model'))"
    subprocess.run([sys.executable, "-c", write], cwd=plugin, check=True)
    faults = []
    for python, path in ((sys.executable, str(STAND_IN)), (EXO_PYTHON, "")):
        done = subprocess.run(
            [python, "-c", TOKENIZER, str(plugin / "model")],
            env=os.environ | {"PYTHONPATH": path, "EXO_HOME": str(tmp_path / "home")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        faults.append(json.loads(done.stdout.splitlines()[-1]))
    assert faults[0] == faults[1]


def test_each_stand_in_has_modules() -> None:
    assert {"exo.inference.tokenizers", "exo.models"} <= set(modules(STAND_IN))
    assert {"exo.main", "exo.worker.engines.base"} <= set(modules(STAND_IN_0_3))


def test_a_name_that_exo_has_otherwise_is_a_difference(tmp_path: Path) -> None:
    own, other = tmp_path / "own/exo", tmp_path / "other/exo"
    for folder in (own, other):
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    (own / "a.py").write_text(
        "from dataclasses import dataclass\n"
        "def gone(): ...\n"
        "def other(x, y): ...\n"
        "async def later(): ...\n"
        "@dataclass\nclass Record:\n    a: int\n    b: int = 1\n"
    )
    (other / "a.py").write_text(
        "from dataclasses import dataclass\n"
        "def other(x, z): ...\n"
        "def later(): ...\n"
        "@dataclass\nclass Record:\n    a: int = 1\n    c: int = 2\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={other.parent} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    assert differences(python, [own.parent], {}) == [
        "exo.a:gone is not in exo",
        "exo.a:other takes y, and exo's x, z",
        "exo.a:other lacks z, which exo's must be given",
        "exo.a:later gives a coroutine, exo's a plain",
        "exo.a:Record: exo has no field b",
        "exo.a:Record: exo requires otherwise a",
    ]
