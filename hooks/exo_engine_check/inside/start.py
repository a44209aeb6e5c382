"""Starts the child: python start.py PIPE REQUEST.

The package is loaded under a name of its own, so that no folder of the checker's is on the path.
"""

import importlib.util
import sys
from pathlib import Path

if __name__ == "__main__":
    folder = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != folder]
    name = "exo_engine_check_inside"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    importlib.import_module(f"{name}.runner").main(int(sys.argv[1]), sys.argv[2])
