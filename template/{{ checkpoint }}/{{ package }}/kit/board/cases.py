"""The cases of the operations board: plain data, and as text what runs one again."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from ..llama.config import Config
from ..llama.rope import Rope
from ..llama.table import NAMES

DTYPES = ("float32", "float16", "bfloat16")
OPERATIONS = (*NAMES, "model")


@dataclass(frozen=True)
class Case:
    """One call of an operation; a member that an operation has no use for changes nothing.

    rows: positions of a step, past: those before it. requests: the first has `rows`, the others
    one. steps: how many follow, of one row each. hidden, inner, vocab: sizes of a row; linear goes
    from hidden to inner. window: 0 is full attention. qk_norm: a norm has rows of heads. dtype:
    what numbers are rounded to; they are float32 all the same. scale: of the numbers in x.
    """

    operation: str
    rows: int = 1
    past: int = 0
    requests: int = 1
    steps: int = 0
    hidden: int = 64
    inner: int = 96
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    vocab: int = 61
    window: int = 0
    bias: int = 0
    qk_norm: int = 0
    eps: float = 1e-5
    theta: float = 10000.0
    dtype: str = "float32"
    scale: float = 1.0

    def __str__(self) -> str:
        """As --case takes it."""
        plain = Case(self.operation)
        named = [(f.name, getattr(self, f.name)) for f in fields(self)[1:]]
        return " ".join([self.operation, *(f"{n}={v}" for n, v in named if v != getattr(plain, n))])

    @property
    def config(self) -> Config:
        """A model of two layers with these sizes; only the second has no window."""
        return Config(
            layers=2,
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            vocab_size=self.vocab,
            context_length=self.past + self.rows + self.steps + 1,
            norm_eps=self.eps,
            rope=Rope(self.theta),
            windows=(self.window or None, None),
            qkv_bias=bool(self.bias),
            output_bias=bool(self.bias),
            mlp_bias=bool(self.bias),
            qk_norm=bool(self.qk_norm),
            tied=False,
        )


def parsed(text: str) -> Case:
    """The case of a text. Raises ValueError."""
    operation, *words = text.split()
    if operation not in OPERATIONS:
        raise ValueError(f"{operation!r} is no operation: {', '.join(OPERATIONS)}")
    kinds = {f.name: type(getattr(Case(operation), f.name)) for f in fields(Case)[1:]}
    values: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in kinds:
            raise ValueError(f"a case has no {name!r}, but {', '.join(kinds)}")
        values[name] = kinds[name](value)
    case = Case(operation, **values)
    sizes = (case.rows, case.requests, case.hidden, case.inner, case.kv_heads, case.vocab)
    if min(sizes) < 1 or min(case.past, case.steps, case.window) < 0 or case.dtype not in DTYPES:
        raise ValueError(f"sizes are above 0, and a dtype is one of {', '.join(DTYPES)}")
    if case.head_dim < 2 or case.head_dim % 2 or case.heads < 1 or case.heads % case.kv_heads:
        raise ValueError("head_dim is even, and heads a multiple of kv_heads")
    return case


def _cases(operation: str, *texts: str) -> tuple[Case, ...]:
    return tuple(parsed(f"{operation} {text}") for text in texts)


# Tiny, odd, and one of a size that is worth timing, which comes last.
DEFAULT: tuple[Case, ...] = (
    *_cases("embed", "", "rows=7 dtype=bfloat16", "rows=64 hidden=576 vocab=4096"),
    *_cases("rms_norm", "", "rows=7 hidden=37", "rows=3 scale=1e-3", "rows=3 scale=1e-3 eps=1e-6"),
    *_cases("rms_norm", "rows=3 scale=1000", "rows=2 scale=0", "rows=5 qk_norm=1 dtype=bfloat16"),
    *_cases("rms_norm", "rows=64 hidden=2048"),
    *_cases("linear", "", "bias=1", "rows=2 bias=1", "rows=3 hidden=37 inner=53", "rows=7"),
    *_cases("linear", "rows=6 hidden=33 inner=1", "rows=33 hidden=65 inner=129 bias=1"),
    *_cases("linear", "rows=5 dtype=bfloat16", "rows=5 dtype=float16 scale=30"),
    *_cases("linear", "rows=64 hidden=1024 inner=1024", "hidden=1024 inner=2048"),
    *_cases("rotate", "", "past=9", "rows=7 past=5", "rows=5 heads=3 kv_heads=1 head_dim=6"),
    *_cases("rotate", "rows=3 past=3000 theta=1e6", "rows=3 head_dim=2", "rows=64 heads=32"),
    *_cases("attend", "", "rows=7", "rows=2", "past=20", "rows=5 past=9", "rows=3 steps=4"),
    *_cases("attend", "rows=7 heads=4 kv_heads=4", "rows=7 heads=6 kv_heads=1 past=3"),
    *_cases("attend", "rows=7 window=3", "window=3 past=20", "rows=5 past=9 window=4 steps=3"),
    *_cases("attend", "rows=6 window=6", "rows=7 window=1", "window=21 past=20"),
    *_cases("attend", "rows=32 scale=6", "rows=33 past=31 head_dim=10 dtype=bfloat16"),
    *_cases("attend", "rows=64 past=192 heads=8 head_dim=64", "past=1023 heads=8 head_dim=64"),
    *_cases("attention", "", "rows=7", "past=9 bias=1", "rows=5 past=3 qk_norm=1 steps=2"),
    *_cases("attention", "rows=4 requests=3 past=2", "rows=7 window=3", "requests=3 window=3"),
    *_cases("attention", "rows=64 hidden=512 heads=8 head_dim=64"),
    *_cases("mlp", "", "rows=3 bias=1", "rows=7 hidden=37 inner=53", "rows=3 scale=100"),
    *_cases("mlp", "rows=5 dtype=bfloat16", "rows=64 hidden=512 inner=1024"),
    *_cases("layer", "", "rows=7", "rows=4 requests=3 past=2 bias=1", "rows=5 window=3 steps=3"),
    *_cases("layer", "rows=5 qk_norm=1 steps=2", "rows=32 hidden=512 inner=1024 heads=8"),
    *_cases("logits", "", "rows=3 scale=1e-3", "hidden=512 vocab=4096"),
    *_cases("model", "", "rows=7 steps=5", "rows=9 window=3 steps=3 bias=1"),
    *_cases("model", "rows=4 requests=3 past=2 qk_norm=1", "rows=32 steps=4 hidden=512 inner=1024"),
)


def of_model(config: Config) -> Iterator[Case]:
    """Cases with a model's own sizes: a token far into its context, a few, and a prompt."""
    window = next((w for w in config.windows if w), 0)
    base = Case(
        "model",
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        vocab=config.vocab_size,
        window=window,
        bias=int(config.qkv_bias or config.mlp_bias),
        qk_norm=int(config.qk_norm),
        eps=config.norm_eps,
        theta=config.rope.theta,
        dtype="bfloat16",
    )
    past = min(512, config.context_length // 2)
    for name in OPERATIONS:
        for rows, before in ((7, 0), (64, 0), (1, past)):
            yield replace(base, operation=name, rows=rows, past=before)
