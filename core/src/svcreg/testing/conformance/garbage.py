"""A record that makes no sense is left out, and hides none of its neighbours."""

from __future__ import annotations

import pytest

from svcreg.testing.conformance.base import Base, World, one
from svcreg.testing.settings import NO_GARBAGE, PlantGarbage, declared, not_applicable


class Garbage(Base):
    """Tests of records that somebody else wrote."""

    @pytest.fixture
    def garbage(self, request: pytest.FixtureRequest) -> PlantGarbage:
        """Return what writes a record that makes no sense."""
        plant: PlantGarbage = declared(request, "plant_garbage") or not_applicable(NO_GARBAGE)
        return plant

    def test_garbage_that_is_there_hides_no_record(
        self, garbage: PlantGarbage, world: World
    ) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        here.register(one(name, "before"))
        garbage(name)
        world.shows(there, name, [one(name, "before")])
        assert name in there.list()
        watching = there.watch(name)
        late = here.register(one(name, "after"))
        world.eventually(lambda: set(watching.state()) == {"before", "after"})
        late.close()
        world.eventually(lambda: set(watching.state()) == {"before"})

    def test_garbage_that_comes_ends_no_watch(self, garbage: PlantGarbage, world: World) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        watching, everything = there.watch(name), there.watch()
        here.register(one(name, "before"))
        world.eventually(lambda: watching.seen("before"))
        garbage(name)
        here.register(one(name, "after"))
        world.eventually(lambda: watching.seen("after"))
        world.eventually(lambda: everything.seen("after"), self.settle + 5)  # it may be polled
        assert set(watching.state()) == {"before", "after"}
        assert there.status().connected
