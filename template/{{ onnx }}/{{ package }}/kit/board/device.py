"""What the board compares: the graph's pieces, each by itself on ONNX Runtime's provider."""

from importlib import import_module

from ...names import PACKAGE
from ..llama.table import NAMES, TOLERANCE, Own
from ..settings import PREFIX

SOURCE, START = "ONNX Runtime", ""
BY_NUMPY = ("embed", "rotate")  # rows of ids, and what is inside GroupQueryAttention
HEADS_OF = 16  # numbers: HEAD_STEP of kit/onnx/graph.py, which needs onnx
COMPARED = (*(name for name in NAMES if name not in BY_NUMPY), "model")
HALF = 1e-2  # of the largest number of a row, where the provider computes in float16


def own() -> Own:
    """Those of the provider that the backend would take. Raises ValueError, ProviderError."""
    backend = import_module(f"{PACKAGE}.backend").Backend()
    import_module(f"{PACKAGE}.kit.onnx.builds").the_one()
    plan = backend.plan()
    if plan.precision in ("int8", "int4"):
        raise ValueError(
            f"{PREFIX}PRECISION is {plan.precision}, and the reference has no small numbers; "
            "without it, the board compares floats"
        )
    provider = import_module(f"{PACKAGE}.kit.onnx.providers").chosen(plan, backend.plugin)
    pieces = import_module(f"{PACKAGE}.kit.onnx.operations").Pieces(plan, provider)
    return Own(pieces.table, HALF if pieces.kind.half else TOLERANCE, provider.name)
