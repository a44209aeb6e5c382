"""What is patched in exo 0.0. Delete this folder, and exo is as its authors left it.

patch.py says how; each other module has the patches of one part of exo.
"""

from . import api, messages, node, ring, shutdown  # each registers its patches
from .patch import PATCHES, apply_patches

__all__ = ["PATCHES", "api", "apply_patches", "messages", "node", "ring", "shutdown"]
