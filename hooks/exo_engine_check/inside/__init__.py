"""What runs in the child process, on any Python that may have exo: standard library, NumPy, exo.

It imports nothing of the checker around it, which only reads the docstrings of `checks` here.
"""
