"""Who lives stays listed, who died goes in time, and nobody is withdrawn by somebody else's end."""

from __future__ import annotations

import asyncio
import signal
import threading
import time

from svcreg import Node, Service
from svcreg.testing.conformance.base import POLL, Base, World, needs, one

HELD_UP = 0.2
"""Seconds for which a backend may keep core from anything else, such as renewing for others."""

ATTEMPTS = 3
"""Times that this is measured, of which the best counts."""

BEATS = 3
"""Renewals that a test waits for before it believes that they do no harm."""


class Liveness(Base):
    """Tests of TTLs, owners and processes."""

    @needs("ttl")
    def test_renewals_go_on_while_the_application_is_blocked(self, world: World) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        here.register(one(name, "node"), ttl=self.ttl)
        watching = there.watch(name)
        world.eventually(lambda: watching.seen("node") == ["create"])
        here.block(self.ttl + self.grace)
        assert watching.seen("node") == ["create"]
        assert list(there.get(name)) == [one(name, "node")]

    @needs("ttl")
    def test_node_of_an_owner_that_hangs_goes_and_comes_back(self, world: World) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        here.register(one(name, "node"), ttl=self.ttl)
        watching = there.watch(name)
        world.eventually(lambda: watching.seen("node"))
        may_go_on, bound = threading.Event(), self.ttl + self.grace

        async def hang() -> None:
            may_go_on.wait(bound + self.settle)

        hanging = here.loop.submit(hang())  # the whole registry, renewals and all
        try:
            seconds = world.eventually(
                lambda: watching.seen("node") == ["create", "delete"],
                bound,
                "a node goes within its TTL and `grace` after the last renewal, which watches are "
                "told, whatever has become of its owner",
            )
        finally:
            may_go_on.set()
        world.measure("the node of an owner that hangs goes", seconds, "s", bound)
        hanging.result()
        world.eventually(
            lambda: watching.seen("node") == ["create", "delete", "create"],
            self.ttl + self.settle,
            "`svcreg_renew` returns what the registry no longer knows, and core registers it anew",
        )

    def test_no_hook_holds_up_the_event_loop(self, world: World) -> None:
        longest = HELD_UP + 1
        for _ in range(ATTEMPTS):  # the machine itself may hold it up now and then
            if longest > HELD_UP:
                longest = min(longest, self._longest_delay(world))
        world.measure("hooks hold up the event loop", longest, "s", HELD_UP)
        assert longest <= HELD_UP, "an `async def` must not block: make it a `def`, or await"

    def _longest_delay(self, world: World) -> float:
        """Return the seconds for which the loop did nothing else while every hook was called."""
        client, name = world.open(), world.name()
        delays, has_ended = [0.0], threading.Event()

        async def beat() -> None:
            while not has_ended.is_set():
                before = time.monotonic()
                await asyncio.sleep(POLL)
                delays.append(time.monotonic() - before - POLL)

        beating = client.loop.submit(beat())
        held = client.register(one(name, "node"), ttl=1.0, interval=0.1)
        watching = client.watch(name)
        client.get(name)
        client.list()
        renewed_at = held.raw.last_renewal
        world.eventually(lambda: held.raw.last_renewal > renewed_at)
        held.close()
        world.eventually(lambda: watching.seen("node") == ["create", "delete"])
        has_ended.set()
        beating.result()
        return max(delays)

    @needs("ttl", "cross-process")
    def test_node_of_a_killed_process_goes_within_its_ttl_and_its_successor_stays(
        self, world: World
    ) -> None:
        name, there = world.name(), world.open()
        watching = there.watch(name)
        nodes = (Node("alone", "10.0.0.1:1"), Node("succeeded", "10.0.0.1:2"))
        owner = world.spawn(Service(name, nodes=nodes))
        world.eventually(lambda: set(watching.state()) == {"alone", "succeeded"})
        owner.signal(signal.SIGKILL)
        killed_at = time.monotonic()
        successor = one(name, "succeeded", "10.0.0.2:2")
        world.open().register(successor, ttl=self.ttl)
        bound = self.ttl + self.grace
        seconds = world.eventually(
            lambda: watching.seen("alone") == ["create", "delete"],
            bound,
            "a node goes within its TTL and `grace` after the last renewal, which watches are told",
        )
        world.measure("a killed process's node goes", seconds, "s", bound)
        world.eventually(lambda: watching.state() == {"succeeded": successor})
        heard = len(watching.events)
        world.stays(lambda: len(watching.events) == heard, killed_at + bound - time.monotonic())
        assert list(there.get(name)) == [successor]

    @needs("cross-process")
    def test_process_that_ends_withdraws_its_node(self, world: World) -> None:
        name, there = world.name(), world.open()
        owner = world.spawn(one(name, "node"), ttl=60)
        world.shows(there, name, [one(name, "node")])
        owner.leave()
        world.shows(there, name, [])

    @needs("cross-process")
    def test_process_that_handles_sigterm_withdraws_its_node(self, world: World) -> None:
        name, there = world.name(), world.open()
        owner = world.spawn(one(name, "node"), "signals", ttl=60)
        world.shows(there, name, [one(name, "node")])
        owner.signal(signal.SIGTERM)
        world.shows(there, name, [])

    @needs("fencing")
    def test_predecessor_withdraws_no_successor(self, world: World) -> None:
        name = world.name()
        old, new, there = world.open(), world.open(), world.open()
        predecessor = old.register(one(name, "node", "10.0.0.1:1"), ttl=60)
        successor = one(name, "node", "10.0.0.2:2")
        new.register(successor, ttl=60)
        world.shows(there, name, [successor])
        watching = there.watch(name)
        predecessor.close()
        old.close()
        new.register(one(name, "barrier"), ttl=60)
        world.eventually(lambda: watching.seen("barrier"))
        assert watching.seen("node") == ["create"]
        assert watching.state()["node"] == successor

    @needs("fencing", "ttl")
    def test_renewals_of_a_predecessor_leave_the_successor_alone(self, world: World) -> None:
        name = world.name()
        old, new, there = world.open(), world.open(), world.open()
        predecessor = old.register(one(name, "node", "10.0.0.1:1"), ttl=1.0, interval=0.1)
        successor = one(name, "node", "10.0.0.2:2")
        new.register(successor, ttl=60)
        watching = there.watch(name)
        world.shows(there, name, [successor])
        renewed_at = 0.0
        for _ in range(BEATS):
            renewed_at = max(renewed_at, predecessor.raw.last_renewal or 0.0)
            world.eventually(lambda at=renewed_at: predecessor.raw.last_renewal > at)  # type: ignore[misc]
        new.register(one(name, "barrier"), ttl=60)
        world.eventually(lambda: watching.seen("barrier"))
        assert watching.state()["node"] == successor
        assert watching.seen("node")[0] == "create"
        assert len(watching.seen("node")) <= 2  # at most the predecessor, then the successor

    def test_withdrawal_amid_renewals_is_final(self, world: World) -> None:
        here, there, name = world.open(), world.open(), world.name()
        watching = there.watch(name)
        held = [
            here.register(one(name, f"node-{n}"), ttl=1.0, interval=0.1 + n / 50) for n in range(8)
        ]
        world.eventually(lambda: len(watching.state()) == len(held))
        for registration in held:
            here.block(0.03)  # so that each meets the renewals at another moment
            registration.close()
        world.eventually(lambda: not watching.state())
        world.stays(lambda: not there.get(name), 0.5)
        for n in range(len(held)):
            assert watching.seen(f"node-{n}") == ["create", "delete"]

    @needs("cross-process")
    def test_end_of_a_forked_child_withdraws_nothing_of_its_parent(self, world: World) -> None:
        name, there = world.name(), world.open()
        owner = world.spawn(one(name, "node"), "fork", ttl=60)
        watching = there.watch(name)
        world.eventually(lambda: watching.seen("node") == ["create"])
        owner.wait_for("child-used")
        owner.nudge()
        owner.wait_for("child-ended")
        world.stays(lambda: watching.seen("node") == ["create"], 0.3)
        owner.leave()
        world.eventually(lambda: watching.seen("node") == ["create", "delete"])

    @needs("cross-process", "ttl")
    def test_forked_child_renews_nothing_of_its_parent(self, world: World) -> None:
        name, there = world.name(), world.open()
        owner = world.spawn(one(name, "node"), "fork")
        watching = there.watch(name)
        world.eventually(lambda: watching.seen("node") == ["create"])
        owner.wait_for("child-used")
        owner.signal(signal.SIGKILL)  # the child lives on
        world.eventually(
            lambda: watching.seen("node") == ["create", "delete"], self.ttl + self.grace
        )
