"""A library that plays librkllmrt.so, and a board's folders: RKLLM in the process of a real exo.

An answer is the question itself, so that it can be judged to the letter whatever else is asked;
what a stop cut off opens the next answer, unless the plugin prevents it.
"""

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "kit/rkllm/runtime_double.c"
COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
NO_COMPILER = "no C compiler makes the library"
GROUPS = {"110": "1.1.4", "120": "1.2.0", "121": "1.2.3", "130": "1.3.0"}
REPOSITORY = "Qwen2.5-1.5B-Instruct"
REQUESTS = 50 * int(os.environ.get("SOAK", "1"))
CLIENTS = 4  # at once; exo 0.3 admits ten a second
GROWTH = 10.0  # MB that a process may grow by after the first tenth
SPARE = 4  # threads that may be there for a moment longer
# Of its tokenizer: the ids of a message's two marks, then each id's bytes in hex.
VOCABULARY = """
import json, sys
from pathlib import Path
from tokenizers import Tokenizer
from tokenizers_for_tests import byte_level_bpe

folder, target = map(Path, sys.argv[1:])
if not (folder / "tokenizer.json").exists():
    byte_level_bpe(folder)
fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
hidden = [byte for byte in range(256) if byte not in shown]
byte_of = {chr(b): b for b in shown} | {chr(256 + n): b for n, b in enumerate(hidden)}
lines = [" ".join(str(fast.token_to_id(f"<|im_{which}|>")) for which in ("start", "end"))]
for token in range(fast.get_vocab_size(with_added_tokens=True)):
    piece = fast.id_to_token(token)
    is_plain = all(sign in byte_of for sign in piece)
    lines.append((bytes(map(byte_of.get, piece)) if is_plain else piece.encode()).hex())
target.write_text("\\n".join(lines) + "\\n")
"""


def library(folder: Path, group: str) -> Path:
    """Compile one."""
    assert COMPILER is not None
    made = folder / group / "librkllmrt.so"
    made.parent.mkdir(parents=True, exist_ok=True)
    defines = [f"-DGROUP={group}", f'-DVERSION="{GROUPS[group]}"']
    subprocess.run([COMPILER, "-shared", "-fPIC", "-w", *defines, "-o", made, SOURCE], check=True)
    return made


@dataclass(frozen=True)
class Board:
    """The folders, and the settings that lead a plugin to them."""

    folder: Path
    group: str
    vocabulary: Path

    @property
    def settings(self) -> dict[str, str]:
        """Of the plugin, and of the library."""
        models = self.folder / "models"
        models.mkdir(exist_ok=True)
        file = models / f"{REPOSITORY}_W8A8_RK3588.rkllm"
        file.write_bytes(b"RKLLM" + bytes(3000))
        return {
            "RKLLM_LIBRARY": str(library(self.folder, self.group)),
            "RKLLM_MODELS": str(models),
            "RKLLM_CONTEXT": "2048",
            "DOUBLE_ECHO": str(self.vocabulary),
            "DOUBLE_LOG": str(self.folder / "log"),
            "DOUBLE_TOKEN_MS": "1",
            "DOUBLE_FAULTS": str(self.folder / "fault"),
        }

    def plays(self, fault: str) -> None:
        """From now on; empty for none."""
        other = self.folder / "fault.new"
        other.write_text(fault)
        other.replace(self.folder / "fault")

    def calls(self, kind: str) -> int:
        """How many of these the library got."""
        lines = (self.folder / "log").read_text().splitlines()
        return sum(line.split()[0] == kind for line in lines)


def question(n: int, long: bool = False) -> str:
    """The n-th, like no other, in characters of one to four bytes and of several code points."""
    text = f"{n}: Köln, 日本語 नमस्ते 😀👩‍👩‍👧 {n}."
    return text + f" {text}" * 12 if long else text


def soak(board: Board, process: int, wrong: Callable[[int], str | None]) -> None:
    """REQUESTS to the process that has the library: all right, and nothing grows.

    wrong: asks the n-th, of which a third leave; what is wrong with its answer.
    """
    looks: list[tuple[float, int]] = []
    done, lock = list[int](), threading.Lock()

    def ask(n: int) -> str | None:
        fault = wrong(n)
        with lock:
            done.append(n)
            if len(done) % (REQUESTS // 10) == 0:
                looks.append((_memory(process), _threads(process)))
        return fault

    with ThreadPoolExecutor(CLIENTS) as pool:
        faults = [each for each in pool.map(ask, range(REQUESTS)) if each]
    print(f"{board.group}: {REQUESTS} requests, {len(faults)} wrong, MB and threads: {looks}")
    assert not faults, faults[:3]
    assert looks[-1][0] - looks[0][0] <= GROWTH, looks
    assert looks[-1][1] <= looks[0][1] + SPARE, looks
    assert board.calls("abort") >= REQUESTS // 4  # some had gone before their turn came
    assert board.calls("init") == 1


def _memory(process: int) -> float:
    """Resident, in MB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _threads(process: int) -> int:
    """How many it has."""
    return len(list(Path(f"/proc/{process}/task").iterdir()))
