"""A toy model, and scripted backends that run it: the id after n is n + 1."""

import json
import os
import string
import threading
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tokenizers

_OTHERS = [c for c in string.printable if not c.islower() and c != " "]
VOCABULARY = ["<zero>", *string.ascii_lowercase, " ", "<stop>", "<end>", *_OTHERS]
STOP = VOCABULARY.index("<stop>")
END = VOCABULARY.index("<end>")

Array = np.ndarray[Any, np.dtype[Any]]


def write_tokenizer(repo: str, eos: int = END, also: tuple[int, ...] = ()) -> Path:
    """Write a tokenizer of one id a letter where exo keeps a repository's files."""
    folder = Path(os.environ["EXO_HOME"]) / "downloads" / repo.replace("/", "--")
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: number for number, token in enumerate(VOCABULARY)}
    fast = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="<zero>"))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    fast.decoder = tokenizers.decoders.Fuse()
    fast.add_special_tokens(["<zero>", "<stop>", "<end>"])
    fast.save(str(folder / "tokenizer.json"))
    config = {"eos_token": VOCABULARY[eos]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [eos, *also]}))
    return folder


class ToyBackend:
    """Runs the toy model on any slice of layers: each layer adds 1 / layers to every row."""

    whole_model: bool = False
    needs_files: bool = False
    takes_text: bool = False
    made: ClassVar[list["ToyBackend"]] = []

    def __init__(self) -> None:
        self.shard: Any = None
        self.path: Path | None = None
        self.loads = 0
        self.closed = 0
        self.live: set[str] = set()
        self.most_live = 0
        self.forgotten: list[str] = []
        self.threads: set[int] = set()
        ToyBackend.made.append(self)

    def load(self, shard: Any, path: Path | None, tokenizer: Any) -> None:
        """Keep the slice."""
        self.threads.add(threading.get_ident())
        self.loads += 1
        self.shard, self.path = shard, path

    def forward(self, request_id: str, x: Array) -> Array:
        """Ids (1, S), or hidden (1, S, 1), to hidden, or logits (1, 1, V)."""
        self.threads.add(threading.get_ident())
        self.live.add(request_id)
        self.most_live = max(self.most_live, len(self.live))
        hidden = x.astype(np.float32).reshape(1, -1, 1)  # [1, S, 1]
        hidden = hidden + self.shard.get_layer_count() / self.shard.n_layers
        if not self.shard.is_last_layer():
            return np.asarray(hidden, dtype=np.float32)
        logits = np.zeros((1, 1, len(VOCABULARY)), dtype=np.float32)
        logits[0, 0, round(float(hidden[0, -1, 0])) % len(VOCABULARY)] = 1.0
        return logits

    def forget(self, request_id: str) -> None:
        """Drop a request."""
        self.threads.add(threading.get_ident())
        self.live.discard(request_id)
        self.forgotten.append(request_id)

    def close(self) -> None:
        """Count."""
        self.closed += 1

    def check(self) -> str:
        """Say that the toy is there."""
        return "toy"
