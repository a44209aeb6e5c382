"""Fixtures of the tests on a real exo 0.0; they skip without one.

Each case has two lengths: as it stands, and SOAK times as long. SOAK=20 is a matter of hours.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_0_0 import VARIANTS, Variant
from world_0_0 import World, make_world

SOAK = int(os.environ.get("SOAK", "1"))


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> Variant:
    """Each variant of the template."""
    return VARIANTS[request.param]


@pytest.fixture(scope="module")
def world(
    variant: Variant, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """exo, with the variant's plugin, whose device plays what it is told to."""
    with make_world(template, tmp_path_factory.mktemp(f"real-{variant.name}"), variant) as made:
        yield made
