"""Python registers and Go finds it, and the other way round, on every registry."""

from __future__ import annotations

import contextlib

from tests.interop.conftest import Pair
from tests.support.etcd import unique
from tests.support.gomicro import Message
from tests.support.gomicro_services import GRACE, TTL, register, seen, service
from tests.support.servers import eventually


def test_all_that_is_said_of_a_service_is_found(pair: Pair) -> None:
    name = unique("full")
    metadata = {"zone": "z<1>&", "greeting": "Grüße \u2028 你好 😀", "weight": "10"}
    record = service(name, f"{name}-1", **metadata)
    register(pair.writer, record)
    eventually(lambda: pair.reader.nodes(name))
    (found,) = pair.reader.call("get", name=name)
    assert found["version"] == "1.0.0"
    assert found["endpoints"] == record["endpoints"]
    assert found["nodes"] == record["nodes"]
    eventually(lambda: name in pair.reader.names())
    assert pair.reader.call("select", name=name) == record["nodes"][0]
    pair.writer.call("deregister", service=record)


def test_names_with_dots_and_ipv6_addresses_are_found(pair: Pair) -> None:
    name = unique("com.example.greeter")
    record = service(name, f"{name}.node.1")
    record["nodes"][0]["address"] = "[2001:db8::5]:8080"
    register(pair.writer, record)
    eventually(lambda: pair.reader.nodes(name))
    assert {(one["id"], one["address"]) for one in pair.reader.nodes(name).values()} == {
        (f"{name}.node.1", "[2001:db8::5]:8080")
    }
    eventually(lambda: name in pair.reader.names())
    pair.writer.call("deregister", service=record)
    eventually(lambda: not pair.reader.nodes(name))


def test_node_comes_changes_and_leaves(pair: Pair) -> None:
    name, reader = unique("life"), pair.reader
    node = f"{name}-1"
    first, second = (service(name, node, step=step) for step in ("1", "2"))
    expected = [("create", node, "1"), ("update", node, "2"), ("delete", node, "2")]
    if pair.case == "python on mdns":  # to go-micro whatever is announced is new
        expected[1] = ("create", node, "2")
    elif pair.case == "go on mdns":  # it ignores what it is told of a node that it has registered
        expected[1:2] = [("delete", node, "1"), ("create", node, "2")]

    def wait_for(count: int, metadata: list[Message]) -> None:
        eventually(lambda: [n["metadata"] for n in reader.nodes(name).values()] == metadata)
        # A watch of go-micro begins a moment later than it says, and one over mDNS then waits for
        # the second announcement.
        eventually(lambda: len(seen(reader, name)) >= count)
        assert seen(reader, name) == expected[:count]

    reader.call("watch", name=name)
    register(pair.writer, first)
    wait_for(1, [{"step": "1"}])
    if pair.case == "go on mdns":
        pair.writer.call("deregister", service=first)
        wait_for(2, [])
    register(pair.writer, second)
    wait_for(len(expected) - 1, [{"step": "2"}])
    pair.writer.call("deregister", service=second)
    wait_for(len(expected), [])


def test_versions_and_nodes_are_kept_apart(pair: Pair) -> None:
    name, reader = unique("many"), pair.reader
    old = [service(name, f"{name}-{number}", version="1.0.0") for number in (1, 2)]
    new = service(name, f"{name}-3", version="2.0.0")
    for record in (*old, new):
        register(pair.writer, record)

    def versions() -> dict[str, str]:
        return {node_id: node["version"] for node_id, node in reader.nodes(name).items()}

    every = {f"{name}-1": "1.0.0", f"{name}-2": "1.0.0", f"{name}-3": "2.0.0"}
    eventually(lambda: versions() == every)
    pair.writer.call("deregister", service=old[1])
    del every[f"{name}-2"]
    eventually(lambda: versions() == every)
    pair.writer.call("deregister", service=old[0])
    eventually(lambda: versions() == {f"{name}-3": "2.0.0"})
    pair.writer.call("deregister", service=new)
    eventually(lambda: versions() == {})


def test_killed_program_goes_with_its_ttl_and_a_living_one_stays(pair: Pair) -> None:
    name, reader = unique("dead"), pair.reader
    dead, alive = (service(name, f"{name}-{kind}") for kind in ("dead", "alive"))
    reader.call("watch", name=name)
    with contextlib.ExitStack() as stack:
        writer = pair.start_writer(stack)
        register(pair.writer, alive)
        register(writer, dead)
        eventually(lambda: len(reader.nodes(name)) == 2)
        writer.kill()
        # Over mDNS go-micro's records are good for 120 s, whatever the TTL: who comes later is told
        # nothing of it any more.
        looker = pair.world.start_python(stack) if pair.case == "go on mdns" else reader
        eventually(lambda: set(looker.nodes(name)) == {f"{name}-alive"}, TTL + GRACE)
    pair.writer.call("deregister", service=alive)

    def gone() -> list[str]:
        return [node_id for action, node_id, _ in seen(reader, name) if action == "delete"]

    eventually(lambda: f"{name}-alive" in gone())
    # Nor does a watch of go-micro ever learn of a death over mDNS.
    assert gone() == [f"{name}-dead", f"{name}-alive"]["mdns" in pair.case :]


def test_service_metadata_reaches_the_other_side_on_etcd_alone(pair: Pair) -> None:
    name = unique("meta")
    record = {**service(name, f"{name}-1"), "metadata": {"team": "web"}}
    register(pair.writer, record)
    eventually(lambda: pair.reader.nodes(name))
    (found,) = pair.reader.call("get", name=name)
    expected = {"team": "web"} if "etcd" in pair.case else {}
    assert (found["metadata"] or {}) == expected
    pair.writer.call("deregister", service=record)


def test_watch_of_everything_sees_what_the_other_side_registers(pair: Pair) -> None:
    if pair.case == "python on consul":  # go-micro cannot
        assert "service" in pair.reader.ask("watch", name="")["error"]
        return
    name = unique("any")
    record = service(name, f"{name}-1")

    def is_ours(event: Message, action: str) -> bool:
        return bool(event["event"] == action and event["service"]["name"] == name)

    pair.reader.call("watch", name="")
    register(pair.writer, record)
    pair.reader.expect(lambda event: is_ours(event, "create"))
    pair.writer.call("deregister", service=record)
    pair.reader.expect(lambda event: is_ours(event, "delete"))
