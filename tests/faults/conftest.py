"""The faulty backend, installed, in both kinds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.faulty_world import KINDS, World
from tests.support.plugins import Distributions


@pytest.fixture(params=sorted(KINDS))
def world(request: pytest.FixtureRequest, distributions: Distributions) -> Iterator[World]:
    """Give a faulty registry, `async def` and `def` in turn."""
    for kind, name in KINDS.items():
        distributions.install(f"svcreg-{kind}", {}, {kind: f"tests.support.faulty:{name}"})
    world = World(request.param)
    yield world
    world.close()
