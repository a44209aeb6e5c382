"""What an install of this plugin brings: not exo, and nothing that exo's versions contradict."""

import importlib.metadata

from packaging.requirements import Requirement
from plugin import PROJECT

# What exo 0.0 pins (setup.py); exo 0.3 asks for versions from these on.
PINS = {
    "aiofiles": "24.1.0",
    "aiohttp": "3.10.11",
    "grpcio": "1.68.0",
    "huggingface-hub": "0.26.5",
    "jinja2": "3.1.4",
    "numpy": "2.0.0",
    "pillow": "10.4.0",
    "prometheus-client": "0.20.0",
    "protobuf": "5.28.1",
    "psutil": "6.0.0",
    "pydantic": "2.9.2",
    "requests": "2.32.3",
    "rich": "13.7.1",
    "safetensors": "0.4.5",
    "tokenizers": "0.20.3",
    "tqdm": "4.66.4",
    "transformers": "4.46.3",
}


def requirements():
    """What a plain install of this plugin asks for on exo's Python."""
    needs = map(Requirement, importlib.metadata.requires(PROJECT) or [])
    exos = {"extra": "", "python_version": "3.12", "python_full_version": "3.12.0"}
    return [r for r in needs if r.marker is None or r.marker.evaluate(exos)]


def test_exo_is_not_a_dependency():
    assert "exo" not in {requirement.name.lower() for requirement in requirements()}


def test_the_requirements_admit_exos_pins():
    checked = [r for r in requirements() if r.name.lower() in PINS]
    assert checked
    refused = [str(r) for r in checked if not r.specifier.contains(PINS[r.name.lower()])]
    assert refused == []
