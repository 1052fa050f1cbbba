"""A watch tells of everything once: what was there, then each change, until it is closed."""

from __future__ import annotations

import asyncio
import queue
import random
import time
from concurrent.futures import ThreadPoolExecutor

import svcreg
from svcreg import Node, Service
from svcreg.testing.conformance.base import Base, World, needs, one
from svcreg.testing.conformance.faces import Client, Held, Watching

ROUNDS = 30
"""Nodes registered while waits for them are cancelled."""

BATCH = 20
"""Watches that race at a time; so many are open at once."""

PUSHES = 5
"""Changes of which the median must be told at once."""

PUSHED_WITHIN = 0.3
"""Seconds after its acknowledgement in which a change is usually told, where changes are pushed."""

PROMPT = 2.0
"""Seconds within which closing ends an iteration."""


class Watches(Base):
    """Tests of watch."""

    def test_watch_begins_with_what_is_there(self, world: World) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        a, b = one(name, "a"), Service(name, "2", nodes=(Node("b", "10.0.0.6:1", {"k": "v"}),))
        here.register(a)
        here.register(b)
        world.shows(there, name, [a, b])
        watching = there.watch(name)
        world.eventually(lambda: len(watching.events) == 2)
        assert watching.state() == {"a": a, "b": b}
        event = watching.events[0]
        assert abs(event.timestamp - time.time()) < 60

    def test_absent_service_is_waited_for(self, world: World) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        assert there.get(name) == ()
        watching = there.watch(name)
        here.register(one(name, "node"))
        world.eventually(lambda: watching.state() == {"node": one(name, "node")})

    def test_each_change_is_one_event(self, world: World) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        watching = there.watch(name)
        held = here.register(one(name, "node", n="1"))
        world.eventually(lambda: watching.seen("node") == ["create"])
        held.update(metadata={"n": "2"})
        world.eventually(lambda: watching.seen("node") == ["create", "update"])
        assert watching.events[-1].service == one(name, "node", n="2")
        here.register(one(name, "other"))
        world.eventually(lambda: watching.seen("other") == ["create"])
        held.close()
        world.eventually(lambda: watching.seen("node") == ["create", "update", "delete"])
        assert watching.events[-1].service == one(name, "node", n="2")  # as last known
        barrier(world, here, watching, name)
        assert watching.seen("node") == ["create", "update", "delete"]
        assert watching.seen("other") == ["create"]

    def test_renewals_are_no_events(self, world: World) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        held = here.register(one(name, "node"), ttl=1.0, interval=0.1)
        watching = there.watch(name)
        world.eventually(lambda: watching.seen("node"))
        renewed_until = time.time() + 0.5
        world.eventually(lambda: held.raw.last_renewal > renewed_until, self.settle + 1)
        barrier(world, here, watching, name)
        assert watching.seen("node") == ["create"]

    def test_nodes_registered_together_are_one_event_each(self, world: World) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        watching = there.watch(name)
        service = Service(name, nodes=[Node(f"{n}", f"10.0.0.{n}:80") for n in range(1, 11)])
        held = here.register(service)
        world.eventually(lambda: len(watching.state()) == 10)
        held.close()
        world.eventually(lambda: not watching.state())
        assert len(watching.events) == 20

    def test_change_of_version_is_an_update(self, world: World) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        held = here.register(one(name, "node"))
        watching = there.watch(name)
        world.eventually(lambda: watching.seen("node") == ["create"])
        held.update(version="2")
        changed = Service(name, "2", nodes=one(name, "node").nodes)
        world.eventually(lambda: watching.state() == {"node": changed})
        assert watching.seen("node") == ["create", "update"]

    def test_watch_of_a_name_hears_of_no_other(self, world: World) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        watching = there.watch(name)
        for other in (f"{name}-b", f"{name}b", name[:-1]):
            here.register(one(other, "other"))
        here.register(one(name, "node"))
        world.eventually(lambda: watching.seen("node"))
        assert [event.service.name for event in watching.events] == [name]

    def test_watch_without_a_name_hears_of_every_service(self, world: World) -> None:
        base = world.name()
        here, there = world.open(), world.open()
        before = here.register(one(f"{base}-before", f"{base}-1"))
        watching = there.watch()

        def ours() -> list[tuple[str, str]]:
            events = [(e.action, e.service.name.removeprefix(base)) for e in list(watching.events)]
            return sorted(event for event in events if event[1].startswith("-"))

        polled = self.settle + 5  # where the backend cannot watch everything, core polls
        world.eventually(lambda: ours() == [("create", "-before")], polled)
        here.register(one(f"{base}-after", f"{base}-2"))
        expected = [("create", "-after"), ("create", "-before")]
        world.eventually(lambda: ours() == expected, polled)
        before.close()
        expected.append(("delete", "-before"))
        world.eventually(lambda: ours() == expected, polled)

    @needs("watch-all")
    def test_watch_of_every_service_tells_each_change_once(self, world: World) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        watching = there.watch()
        held = here.register(one(name, name, n="1"))
        world.eventually(lambda: watching.seen(name) == ["create"])
        held.update(metadata={"n": "2"})
        world.eventually(lambda: watching.seen(name) == ["create", "update"])
        held.close()
        world.eventually(lambda: watching.seen(name) == ["create", "update", "delete"])

    @needs("push")
    def test_changes_arrive_at_once(self, world: World) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        watching, took = there.watch(name), []
        held = here.register(one(name, "node", n="-1"))
        world.eventually(lambda: watching.seen("node"))
        for n in range(PUSHES):
            changed = one(name, "node", n=str(n))
            held.update(metadata={"n": str(n)})
            took.append(
                world.eventually(lambda changed=changed: watching.state() == {"node": changed})  # type: ignore[misc]
            )
        usual = sorted(took)[PUSHES // 2]
        world.measure("a change is heard of", usual, "s", PUSHED_WITHIN)
        assert usual <= PUSHED_WITHIN, "`push` means that changes arrive without polling"

    def test_two_watches_hear_the_same(self, world: World) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        first = there.watch(name)
        held = here.register(one(name, "node"))
        world.eventually(lambda: first.seen("node") == ["create"])
        second = there.watch(name)
        world.eventually(lambda: second.seen("node") == ["create"])
        first.close()
        held.close()
        world.eventually(lambda: second.seen("node") == ["create", "delete"])
        assert first.seen("node") == ["create"]

    def test_nothing_is_lost_between_reading_and_watching(self, world: World) -> None:
        here, rounds = world.open(), 0
        ends = time.monotonic() + self.race_seconds
        while rounds < self.rounds and time.monotonic() < ends:
            there = world.open()
            watches: dict[str, Watching] = {}
            to_register: queue.SimpleQueue[str | None] = queue.SimpleQueue()
            with ThreadPoolExecutor(1) as pool:
                registering = pool.submit(register_all, here, to_register)
                for _ in range(BATCH):
                    name = world.name()
                    to_register.put(name)
                    watches[name] = there.watch(name)
                to_register.put(None)
                registering.result()
            world.eventually(
                lambda watches=watches: all(watching.events for watching in watches.values()),  # type: ignore[misc]
                why="a node that is registered while a watch begins belongs to the watch's first "
                "snapshot or to a later item: read and watch from one revision, or read again",
            )
            for name, watching in watches.items():
                assert watching.state() == {"node": one(name, "node")}
            there.end()
            rounds += BATCH
        world.measure("a registration races against the start of a watch", rounds, "rounds")

    def test_events_add_up_to_what_get_answers(self, world: World) -> None:
        name, chance = world.name(), random.Random(7)
        here, there = world.open(), world.open()
        watching = there.watch(name)
        held: dict[str, Held] = {}
        truth: dict[str, Service] = {}
        for n in range(60):
            node_id = f"node-{chance.randrange(6)}"
            if node_id not in held:
                truth[node_id] = one(name, node_id, n=str(n))
                held[node_id] = here.register(truth[node_id])
            elif chance.random() < 0.5:
                held[node_id].update(metadata={"n": str(n)})
                truth[node_id] = one(name, node_id, n=str(n))
            else:
                held.pop(node_id).close()
                del truth[node_id]
        world.eventually(lambda: watching.state() == truth, self.settle * 2)
        nodes = [service.nodes[0] for service in truth.values()]
        for client in (there, here):
            world.shows(client, name, [Service(name, nodes=nodes)] if nodes else [])

    def test_slow_consumer_holds_nobody_up_and_misses_nothing_in_the_end(
        self, world: World
    ) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        slow, quick = there.watch(name, pause_after=1), there.watch(name)
        held = here.register(one(name, "node", n="0"))
        world.eventually(lambda: slow.events and quick.events)
        for n in range(1, 101):
            held.update(metadata={"n": str(n)})
        here.register(one(name, "last"))
        final = {"node": one(name, "node", n="100"), "last": one(name, "last")}
        world.eventually(lambda: quick.state() == final, self.settle * 2)
        assert len(slow.events) == 1
        slow.resume()
        world.eventually(lambda: slow.state() == final)

    def test_waits_that_are_cancelled_lose_no_event(self, registry_url: str, world: World) -> None:
        name, here = world.name(), world.open()
        if world.face == "blocking":
            return  # nothing can be cancelled there

        async def collect() -> list[str]:
            seen: list[str] = []
            async with svcreg.aio.open(registry_url) as registry, registry.watch(name) as events:
                writing = asyncio.create_task(asyncio.to_thread(write))
                async with asyncio.timeout(self.settle * 2):
                    while len(seen) < ROUNDS:
                        try:
                            async with asyncio.timeout(random.uniform(0, 0.005)):
                                event = await anext(events)
                        except TimeoutError:
                            continue
                        seen.append(event.service.nodes[0].id)
                await writing
            return seen

        def write() -> None:
            for n in range(ROUNDS):
                here.register(one(name, f"node-{n:02}"))

        assert asyncio.run(collect()) == [f"node-{n:02}" for n in range(ROUNDS)]

    def test_closing_a_watch_ends_it_promptly(self, world: World) -> None:
        client, name = world.open(), world.name()
        watching = client.watch(name)
        assert client.get(name) == ()  # the watch is under way
        watching.close()
        assert watching.has_ended.wait(PROMPT)
        assert watching.error is None
        client.register(one(name, "node"))
        assert watching.events == []

    def test_closing_the_registry_ends_its_watches_promptly(self, world: World) -> None:
        client, name = world.open(), world.name()
        watches = [client.watch(name), client.watch(name), client.watch()]
        assert client.get(name) == ()
        started = time.monotonic()
        client.close()
        for watching in watches:
            assert watching.has_ended.wait(PROMPT + self.settle)
            assert watching.error is None
        assert time.monotonic() - started < PROMPT + self.settle


def barrier(world: World, client: Client, watching: Watching, name: str) -> None:
    """Return once the watch has heard of something that happened after all that came before."""
    client.register(one(name, "barrier"))
    world.eventually(lambda: watching.seen("barrier"))


def register_all(client: Client, names: queue.SimpleQueue[str | None]) -> None:
    """Register a node of each service as its name comes."""
    while (name := names.get()) is not None:
        client.register(one(name, "node"), ttl=60)
