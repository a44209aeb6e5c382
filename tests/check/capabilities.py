"""Writes what each variant can do into the template, as a rendered plugin's CAPABILITIES.md.

python tests/check/capabilities.py [PYTHON_WITH_EXO]
"""

import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import copier  # noqa: E402 - behind the path
from conftest import variants  # noqa: E402 - behind the path
from exo_engine_check.run import Options, check  # noqa: E402 - behind the path

TABLE = "CAPABILITIES.md"


def main() -> None:
    for variant in variants():
        table = ROOT / "template" / f"{{{{ {variant} }}}}" / TABLE
        table.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory() as name:
            plugin = Path(name, f"exo-{variant}")
            answers = {"variant": variant}
            copier.run_copy(
                str(ROOT), plugin, data=answers, defaults=True, vcs_ref="HEAD", quiet=True
            )
            for python in ["", *sys.argv[1:]]:
                report = check(plugin, Options(python=python, report=plugin / TABLE))
                assert not report.faults, report.faults
            shutil.copy(plugin / TABLE, table)


if __name__ == "__main__":
    main()
