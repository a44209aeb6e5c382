"""Long and short names leave the rendered code clean: a name decides where a line breaks."""

import subprocess
import sys

import pytest
from conftest import Render, variants


@pytest.mark.parametrize("variant", variants())
@pytest.mark.parametrize("length", [1, 20, 40])
def test_names_of_any_length_render_clean_code(render: Render, variant: str, length: int) -> None:
    plugin = render(
        variant=variant,
        project_name="x" * length,
        engine_name="x" * length,
        engine_class="X" * min(length + 5, 45) + "InferenceEngine",
    )
    for command in (["check"], ["format", "--check", "--diff"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache"]
        done = subprocess.run(ruff, cwd=plugin, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("project_name", "x" * 41),
        ("engine_name", "x" * 41),
        ("engine_class", "X" * 46 + "InferenceEngine"),
    ],
)
def test_a_longer_name_is_refused(render: Render, question: str, name: str) -> None:
    with pytest.raises(ValueError, match="too long"):
        render(**{question: name})
