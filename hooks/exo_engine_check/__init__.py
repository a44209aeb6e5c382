"""`exo-engine check`: will exo discover, load and run this plugin?

A check is a small class in one of the modules of `checks`; its docstrings are the manual. They are
built on repo-review and registered as its plugin, so that plain `repo-review` shows them too.
"""
