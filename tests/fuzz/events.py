"""Bytes between a check's sealed messages: each message is read as it was sealed, or none is."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from checkpoint import VALUES, Bytes

FOREIGN = (
    b"", b"", b"", b"\n", b"{}\n", b'{"done": true}\n', b" ", b"\x00", b"\xff\n", b"\r\n",
    b"[" * 3000, b'0123456789abcdef {"done": true}\n', b"9" * 5000 + b"\n", b"\n\n", b'"', b"abc",
)  # fmt: skip
KEY = "00" * 32


def attack_in(folder: Path, package: str) -> Callable[[bytes], None]:
    """Function of a fuzzer's bytes: what a plugin writes where the check's own messages go."""
    from exo_engine_check.files import CannotRunError
    from exo_engine_check.inside.events import sealer
    from exo_engine_check.sandbox import Reader

    def attack(data: bytes) -> None:
        choice, seal, sent, foreign = Bytes(data), sealer(KEY), [], False
        source, sink = os.pipe()
        reader = Reader(source, KEY)
        try:
            written = b""
            for _ in range(choice.below(8)):
                event = {"check": "EX1", "message": VALUES[choice.below(len(VALUES))]}
                between = FOREIGN[choice.below(len(FOREIGN))]
                line = seal(json.dumps(event).encode())
                foreign = foreign or bool(between)
                written += between + line
                sent += [] if foreign else [event]
            while written:
                size = 1 + choice.below(len(written)) if choice.left() else len(written)
                os.write(sink, written[:size])
                written = written[size:]
                reader.read(0)
            assert not foreign
        except CannotRunError:
            assert foreign
        finally:
            os.close(sink)
            os.close(source)
        assert reader.events == sent

    return attack
