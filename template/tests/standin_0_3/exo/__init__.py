"""A stand-in for exo 0.3: our own small copy of what a plugin of this template meets there.

exo 0.3 is not on PyPI and wants Python 3.13, so tests use this package where none can be imported.
Where this copy and a real exo disagree, this copy is wrong. The records stand in one module.
"""

STAND_IN = True
