"""A stand-in for exo: our own small copy of what a plugin meets, faults included.

exo is not on PyPI, so the tests use this package wherever no real exo can be imported.
Where this copy and a real exo disagree, this copy is wrong.
"""

from exo.helpers import DEBUG as DEBUG
from exo.helpers import VERSION as VERSION

STAND_IN = True
