"""What the board compares: the operations that the plugin's operations.py names."""

from ..llama.operations import own
from .cases import OPERATIONS

__all__ = ["COMPARED", "HEADS_OF", "SOURCE", "START", "own"]

SOURCE, COMPARED = "operations.py", OPERATIONS
HEADS_OF = 1  # the sizes of heads in the usual cases are multiples of it
START = '''"""The operations of the device, which backend.py computes with.

Each has the arguments and the shapes of the function of its name in kit/llama/llama.py, and gives
a NumPy array. What isn't in OPERATIONS is the reference's. `{project} ops` compares them.
"""

from .kit.llama.llama import Array


def linear(x: Array, weight: Array, bias: Array | None) -> Array:
    """[S, in] -> [S, out] with a matrix [out, in]: write your device's product here."""
    y: Array = x @ weight.T
    return y if bias is None else y + bias


OPERATIONS = {{"linear": linear}}
TOLERANCE = 1e-4  # of the largest number of a row; a device with half precision needs more
'''
