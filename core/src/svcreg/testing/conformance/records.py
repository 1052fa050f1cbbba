"""What is registered is found again, whole, by its own name and by all, until it is withdrawn."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from svcreg import Endpoint, InvalidServiceError, Node, Service, Value
from svcreg.hookspecs import CAPABILITIES
from svcreg.testing.conformance.base import Base, World, ids, needs, one

REFUSED_NAMES = ("", ".", "..", "a/b", "../../b", "a b", "a\n", "\u00e4", "x" * 300)
MANY = 30
"""Nodes and versions of one service; more than fit into one packet or page of some servers."""


class Records(Base):
    """Tests of register, deregister, get and list."""

    def test_capabilities_are_those_of_the_contract(self, capabilities: frozenset[str]) -> None:
        assert capabilities <= set(CAPABILITIES)

    def test_node_is_found_with_every_field(self, world: World) -> None:
        name = world.name()
        service = Service(
            name,
            "1.2.0-rc.1+build",
            nodes=(
                Node(f"{name}-1", "10.0.0.5:8080", {"zone": "z1", "empty": "", "k=v": "a=b;c,d"}),
                Node(f"{name}-2", "[2001:db8::1]:1", {"unicode": "\u00e4\u4e2d\U0001f600 \"'\\"}),
                Node(f"{name}-3", "10.0.0.6:65535"),
            ),
        )
        here, there = world.open(), world.open()
        here.register(service)
        world.shows(here, name, [service], within=0.5)
        world.shows(there, name, [service])

    @needs("endpoints")
    def test_endpoints_and_metadata_of_the_service_are_found(self, world: World) -> None:
        name = world.name()
        fields = (Value("name", "string"), Value("tags", "[]Tag", (Value("key", "string"),)))
        endpoints = (
            Endpoint("Greeter.Hello", Value("Request", "Request", fields), Value("R", "R")),
            Endpoint("Greeter.Stream", metadata={"stream": "true", "path": "/a?b=\u00e4"}),
        )
        service = Service(
            name,
            "2",
            {"owner": "team \u00e4", "": "empty"},
            endpoints,
            (Node(name, "10.0.0.5:1"),),
        )
        world.open().register(service)
        world.shows(world.open(), name, [service])

    def test_large_record_is_found_whole(self, world: World) -> None:
        name = world.name()
        metadata = {f"key-{n:03}": f"{n:03}" * 10 for n in range(self.record_size // 40)}
        service = Service(name, nodes=(Node(name, "10.0.0.5:8080", metadata),))
        world.open().register(service)
        world.shows(world.open(), name, [service])

    def test_name_and_node_id_may_be_as_long_as_the_limit(self, world: World) -> None:
        name = world.name("-").ljust(self.name_limit, "x")
        service = one(name, name[::-1])
        world.open().register(service)
        world.shows(world.open(), name, [service])

    def test_name_or_node_id_beyond_the_limit_is_refused(self, world: World) -> None:
        long, client = world.name("-").ljust(self.name_limit + 1, "x"), world.open()
        for service in (one(long, "node"), one(world.name(), long)):
            with pytest.raises(InvalidServiceError):
                client.register(service)

    def test_name_with_every_allowed_character_is_found(self, world: World) -> None:
        name = world.name("-aZ0._~:@+-")
        service = one(name, f"{name}.1", key="value")
        client = world.open()
        held = client.register(service)
        world.shows(world.open(), name, [service])
        world.eventually(lambda: name in client.list())
        held.close()
        world.shows(client, name, [])

    @pytest.mark.parametrize("name", REFUSED_NAMES, ids=range(len(REFUSED_NAMES)))
    def test_name_outside_the_rules_reaches_no_backend(self, world: World, name: str) -> None:
        client = world.open()
        for call in (
            lambda: client.get(name),
            lambda: client.watch(name),
            lambda: client.register(one(name, "node")),
            lambda: client.register(one(world.name(), name)),
            lambda: client.deregister(one(name, "node")),
        ):
            with pytest.raises(InvalidServiceError):
                call()

    def test_name_is_no_prefix(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        base = world.name()
        names = [base, f"{base}-b", f"{base}b", f"{base}.b", f"{base}:b", base.upper()]
        here, there = world.open(), world.open()
        held = {name: here.register(one(name, f"{name}-1")) for name in names}
        for name in names:
            world.shows(there, name, [one(name, f"{name}-1")])
        held[base].close()
        world.shows(there, base, [])
        for name in names[1:]:
            world.shows(there, name, [one(name, f"{name}-1")])
        assert base not in caplog.text  # core had nothing of another name to leave out

    def test_many_nodes_of_one_service(self, world: World) -> None:
        name = world.name()
        nodes = [Node(f"{name}-{n}", f"10.0.0.{n}:80", {"n": str(n)}) for n in range(1, MANY + 1)]
        here, there = world.open(), world.open()
        held = here.register(Service(name, nodes=nodes[:-1]))
        last = here.register(Service(name, nodes=nodes[-1:]))
        world.shows(there, name, [Service(name, nodes=nodes)])
        last.close()
        world.shows(there, name, [Service(name, nodes=nodes[:-1])])
        held.close()
        world.shows(there, name, [])

    def test_many_versions_of_one_service(self, world: World) -> None:
        name = world.name()
        services = [
            Service(name, f"1.{n}", nodes=(Node(f"{name}-{n}", f"10.0.0.1:{n}"),))
            for n in range(1, MANY + 1)
        ]
        here, there = world.open(), world.open()
        for service in services:
            here.register(service)
        world.shows(there, name, services)
        found = there.get(name)
        assert [s.version for s in found] == sorted(s.version for s in services)

    def test_registering_twice_is_the_same_as_once(self, world: World) -> None:
        service = one(world.name(), "node")
        here, there = world.open(), world.open()
        first = here.register(service)
        second = here.register(service)
        world.shows(there, service.name, [service])
        first.close()  # has been taken over: it has nothing left to withdraw
        world.stays(lambda: ids(here.get(service.name)) == {"node"}, 0.1)
        second.close()
        world.shows(there, service.name, [])

    def test_registering_again_replaces_the_record(self, world: World) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        here.register(one(name, "node", "10.0.0.1:1", old="yes"))
        moved = Service(name, "2", nodes=(Node("node", "10.0.0.2:2", {"new": "yes"}),))
        here.register(moved)
        world.shows(there, name, [moved])

    def test_update_changes_the_record_in_place(self, world: World) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        held = here.register(one(name, "node", a="1", b="2"))
        world.shows(there, name, [one(name, "node", a="1", b="2")])
        held.update(metadata={"a": "3"})
        world.shows(there, name, [one(name, "node", a="3")])
        held.update(version="2")
        world.shows(
            there, name, [Service(name, "2", nodes=(Node("node", "10.0.0.5:8080", {"a": "3"}),))]
        )

    def test_update_may_drop_and_add_nodes(self, world: World) -> None:
        name = world.name()
        a, b, c = (Node(f"{name}-{n}", "10.0.0.5:8080") for n in "abc")
        here, there = world.open(), world.open()
        held = here.register(Service(name, nodes=(a, b)))
        held.update(nodes=(b, c))
        world.shows(there, name, [Service(name, nodes=(b, c))])
        held.close()
        world.shows(there, name, [])

    @needs("endpoints")
    def test_change_of_an_endpoint_alone_is_a_change(self, world: World) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        held = here.register(one(name, "node"))
        world.shows(there, name, [one(name, "node")])
        held.update(endpoints=(Endpoint("Greeter.Hello"),), service_metadata={"a": "b"})
        changed = Service(
            name, "", {"a": "b"}, (Endpoint("Greeter.Hello"),), (Node("node", "10.0.0.5:8080"),)
        )
        world.shows(there, name, [changed])

    def test_deregistering_what_is_unknown_is_success(self, world: World) -> None:
        client, name = world.open(), world.name()
        client.deregister(one(name, "node"))
        client.register(one(name, "other"))
        client.deregister(one(name, "node"))
        world.shows(client, name, [one(name, "other")])

    def test_deregistering_a_registration_of_our_own_lets_go_of_it(self, world: World) -> None:
        client, name = world.open(), world.name()
        held = client.register(one(name, "node"), ttl=1.0, interval=0.1)
        client.deregister(one(name, "node"))
        world.shows(client, name, [])
        world.stays(lambda: not client.get(name), 0.5)  # several renewals later
        held.close()

    @needs("cross-process")
    def test_deregistering_withdraws_what_somebody_else_registered(self, world: World) -> None:
        here, there, name = world.open(), world.open(), world.name()
        here.register(one(name, "node"), ttl=60)
        world.shows(there, name, [one(name, "node")])
        there.deregister(one(name, "node"))
        world.shows(there, name, [])

    def test_draining_hides_the_nodes_and_then_withdraws_them(self, world: World) -> None:
        here, there, name = world.open(), world.open(), world.name()
        held = here.register(one(name, "node"), ttl=60)
        here.register(one(name, "other"), ttl=60)
        world.eventually(lambda: len(there.get(name)[0].nodes) == 2)
        held.drain(0.1)
        assert held.raw.state == "closed"
        world.shows(there, name, [one(name, "other")])
        held.drain(0.1)

    def test_closing_a_registration_withdraws_it_alone(self, world: World) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        first = here.register(one(name, f"{name}-1"))
        here.register(one(name, f"{name}-2"))
        world.shows(
            there, name, [Service(name, nodes=[Node(f"{name}-{n}", "10.0.0.5:8080") for n in "12"])]
        )
        first.close()
        world.shows(there, name, [one(name, f"{name}-2")])
        first.close()
        world.shows(here, name, [one(name, f"{name}-2")])

    def test_registering_after_withdrawing_is_listed_again(self, world: World) -> None:
        name = world.name()
        here, there = world.open(), world.open()
        for n in range(3):
            service = one(name, "node", round=str(n))
            held = here.register(service)
            world.shows(there, name, [service])
            held.close()
            world.shows(there, name, [])

    def test_many_threads_may_register_and_withdraw_at_once(self, world: World) -> None:
        name, here, there = world.name(), world.open(), world.open()
        kept = [one(name, f"kept-{n}") for n in range(5)]

        def work(n: int) -> None:
            for _ in range(3):
                here.register(one(name, f"brief-{n}")).close()
            here.register(kept[n])

        with ThreadPoolExecutor(len(kept)) as pool:
            list(pool.map(work, range(len(kept))))
        nodes = [service.nodes[0] for service in kept]
        world.shows(there, name, [Service(name, nodes=nodes)])
        world.shows(here, name, [Service(name, nodes=nodes)])

    def test_unknown_service_is_empty(self, world: World) -> None:
        client, name = world.open(), world.name()
        assert client.get(name) == ()
        assert name not in client.list()

    def test_names_are_listed_once_and_sorted(self, world: World) -> None:
        base, here, there = world.name(), world.open(), world.open()
        names = [f"{base}-{letter}" for letter in "cab"]
        held: dict[str, Any] = {}
        for name in names:
            held[name] = here.register(one(name, f"{name}-1"))
            here.register(Service(name, "2", nodes=(Node(f"{name}-2", "10.0.0.5:8080"),)))

        def ours() -> list[str]:
            listed = there.list()
            assert list(listed) == sorted(set(listed))
            return [name for name in listed if name.startswith(base)]

        world.eventually(lambda: ours() == sorted(names), self.settle + 1)  # list may be 1 s old
        held[names[0]].close()
        here.deregister(one(names[0], f"{names[0]}-2"))
        world.eventually(lambda: ours() == sorted(names[1:]), self.settle + 1)

    def test_selected_node_is_one_of_those_registered(self, world: World) -> None:
        service = one(world.name(), "node")
        here, there = world.open(), world.open()
        here.register(service)
        world.shows(there, service.name, [service])
        assert there.select(service.name) == service.nodes[0]
