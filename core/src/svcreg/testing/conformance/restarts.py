"""The server ends as in a crash and starts again, with or without what it knew."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from svcreg.testing.conformance.base import Base, World, one
from svcreg.testing.conformance.faults import answer
from svcreg.testing.settings import (
    NO_RESTART,
    NO_SERVER,
    Server,
    find_server,
    not_applicable,
)


class Restarts(Base):
    """Tests of a server that may be stopped."""

    @pytest.fixture
    def stoppable(self, request: pytest.FixtureRequest) -> Iterator[Server]:
        """Return the server; it runs again when the test is over."""
        server = find_server(request)
        if server is None or isinstance(server, str):
            not_applicable(NO_SERVER if server is None else NO_RESTART)
        yield server

    @pytest.mark.parametrize("keep_data", [True, False], ids=["with-data", "without-data"])
    def test_restart_of_the_server_is_made_good(
        self, stoppable: Server, world: World, *, keep_data: bool
    ) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        held = [here.register(one(name, f"node-{n}"), ttl=3 * self.ttl) for n in range(3)]
        watching = there.watch(name)
        world.eventually(lambda: len(watching.state()) == len(held))
        known = watching.state()
        stoppable.stop()
        try:
            world.eventually(lambda: there.status().feeds[0].stale, self.recovery)
            assert len(there.get(name)[0].nodes) == len(held)  # stale beats empty
        finally:
            stoppable.start(keep_data=keep_data)
        fresh = world.open()
        seconds = world.eventually(
            lambda: (
                answer(fresh, name) == answer(there, name) == set(known)
                and all(registration.raw.state == "active" for registration in held)
                and not there.status().feeds[0].stale
            ),
            self.recovery,
            "what the server forgot is registered anew, and watches are opened again",
        )
        how = "with" if keep_data else "without"
        world.measure(f"all is well after a restart {how} data", seconds, "s", self.recovery)
        world.eventually(lambda: watching.state() == known)
        late = here.register(one(name, "late"), ttl=60)
        world.eventually(lambda: watching.seen("late"))
        late.close()
        world.eventually(lambda: watching.state() == known)
