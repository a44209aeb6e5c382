"""exo 0.3's dashboard in a real browser: a new user types, and the plugin's model answers.

EXO_0_3_DASHBOARD names the dashboard's `build` folder, NODE_PATH a folder of node_modules that has
playwright-core; CHROMIUM the browser, where it is not /usr/bin/chromium.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import render_into
from nodes_0_3 import install, namespace, node, why_not
from test_exo_0_3 import MODEL, REPOSITORY

DASHBOARD = os.environ.get("EXO_0_3_DASHBOARD", "")
WHY = why_not() or ("" if DASHBOARD else "EXO_0_3_DASHBOARD is not set to a built dashboard")
SCRIPT = Path(__file__).with_name("dashboard_0_3.js")

pytestmark = [
    pytest.mark.skipif(bool(WHY), reason=WHY),
    pytest.mark.skipif("EXO_REAL_MODEL" not in os.environ, reason="EXO_REAL_MODEL is not set"),
    pytest.mark.xdist_group("real-exo-0-3"),
]


def test_just_start_typing_gets_an_answer_of_the_plugin_s_model(
    template: Path, tmp_path: Path
) -> None:
    plugin = render_into(template, tmp_path / "exo-numpy", variant="numpy")
    python = install(tmp_path / "venv", plugin)
    folder = tmp_path / REPOSITORY
    shutil.copytree(os.environ["EXO_REAL_MODEL"], folder, symlinks=False)
    settings = {"EXO_NUMPY_FOLDERS": str(folder), "EXO_DASHBOARD_DIR": DASHBOARD}
    with namespace() as space:
        command = (python, "-m", "exo_numpy", "exo")  # it starts the first model that is here
        with node(space, tmp_path / "node", *command, **settings) as exo:
            exo.wait_for("ready model", lambda: "RunnerReady" in exo.statuses().values() or None)
            url = f"http://127.0.0.1:{exo.port}/"
            line = space.command("node", SCRIPT, url, f"exo_numpy/{MODEL}", "Hi 🙂", tmp_path)
            done = subprocess.run(line, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr
            result = json.loads(done.stdout)
            exo.wait_for("end of its process", lambda: not exo.runners() or None)
    assert f"exo_numpy/{MODEL}" in result["first"]
    assert "Hi 🙂" in result["answer"]
    assert MODEL in result["answer"]
    assert f"exo_numpy/{MODEL}" not in result["deleted"]
