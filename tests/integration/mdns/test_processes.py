"""Several processes of one machine, on the loopback's multicast."""

from __future__ import annotations

import statistics
import time

from tests.integration.mdns.conftest import StartProgram
from tests.support.mdns import node_ids, service, unique
from tests.support.servers import eventually

TTL = 5


def test_a_node_is_seen_updated_and_withdrawn_within_milliseconds(start: StartProgram) -> None:
    name = unique("greeter")
    owner, reader = start(), start()
    assert reader.watch(name)["services"] == []
    delays: dict[str, list[float]] = {"create": [], "update": [], "delete": []}
    for number in range(5):
        node_id = f"n-{number}"
        began = time.monotonic()
        owner.call("register", service=service(name, node_id), ttl=TTL)
        delays["create"].append(reader.expect_change("upsert", node_id)["at"] - began)

        began = time.monotonic()
        changed = service(name, node_id, "127.0.0.1:8081", metadata={"changed": "yes"})
        owner.call("update", service=changed, ttl=TTL)
        update = reader.expect_change("upsert", node_id, since=began)
        assert update["service"] == {**changed, "endpoints": []}
        delays["update"].append(update["at"] - began)

        began = time.monotonic()
        owner.call("deregister", service=changed)
        delays["delete"].append(reader.expect_change("delete", node_id)["at"] - began)
    for kind, seconds in delays.items():
        print(f"{kind} seen after {1000 * statistics.median(seconds):.1f} ms (median of 5)")
        assert statistics.median(seconds) < 0.1


def test_everything_a_service_has_survives_the_journey(start: StartProgram) -> None:
    name = unique("rich")
    values = [{"name": "id", "type": "int64", "values": []}]
    request = {"name": "Request", "type": "Request", "values": values}
    given = {
        "name": name,
        "version": "1.2.0-β",
        "metadata": {"team": "blau ✓", "empty": ""},
        "endpoints": [
            {
                "name": "Greeter.Hello",
                "request": request,
                "response": None,
                "metadata": {"stream": "true"},
            }
        ],
        "nodes": [
            {"id": "rich.1@host:8080", "address": "[2001:db8::7]:443", "metadata": {"zone": "z1"}}
        ],
    }
    owner, reader = start(), start()
    owner.call("register", service=given, ttl=TTL)
    assert reader.call("get", name=name) == [given]
    assert name in reader.call("list")
    reader.watch(None)
    assert any(given in event["services"] for event in reader.seen if event["event"] == "snapshot")


def test_an_unknown_service_is_answered_soon(start: StartProgram) -> None:
    reader = start()
    began = time.monotonic()
    assert reader.call("get", name=unique("nobody")) == []
    cold = time.monotonic() - began
    began = time.monotonic()
    assert reader.call("get", name=unique("nobody")) == []
    warm = time.monotonic() - began
    print(f"unknown service: {1000 * cold:.0f} ms the first time, {1000 * warm:.1f} ms after")
    assert cold < 1.0
    assert warm < 0.1


def test_a_reader_that_comes_later_finds_what_is_there(start: StartProgram) -> None:
    name = unique("early")
    owners = [start() for _ in range(3)]
    for number, owner in enumerate(owners):
        owner.call("register", service=service(name, f"n-{number}"), ttl=TTL)
    first = start().watch(name)
    assert node_ids(first["services"]) == ["n-0", "n-1", "n-2"]


def test_a_killed_process_is_gone_within_its_ttl(start: StartProgram) -> None:
    name = unique("victim")
    owner, reader = start(), start()
    owner.call("register", service=service(name), ttl=TTL)
    reader.watch(name)
    killed = time.monotonic()
    owner.process.kill()
    gone = reader.expect_change("delete", timeout=TTL + 4)["at"] - killed
    print(f"SIGKILL with a TTL of {TTL} s: gone after {gone:.2f} s")
    assert gone < TTL + 2
    assert reader.call("get", name=name) == []


def test_a_live_process_stays_beyond_its_ttl(start: StartProgram) -> None:
    name = unique("steady")
    owner, reader = start(), start()
    owner.call("register", service=service(name), ttl=2)
    reader.watch(name)
    renewals = [event for event in owner.seen if event["event"] == "renewed"]
    eventually(lambda: len([e for e in owner.seen if e["event"] == "renewed"]) >= len(renewals) + 9)
    assert [event["event"] for event in reader.seen] == ["ready", "snapshot"]
    assert node_ids(reader.call("get", name=name)) == ["n-1"]


def test_a_process_that_ends_withdraws_its_nodes_at_once(start: StartProgram) -> None:
    name = unique("leaver")
    owner, reader = start(), start()
    owner.call("register", service=service(name), ttl=TTL)
    reader.watch(name)
    began = time.monotonic()
    owner.leave()
    gone = reader.expect_change("delete")["at"] - began
    print(f"normal exit: gone after {1000 * gone:.0f} ms")
    assert gone < 0.2


def test_a_killed_process_comes_back_under_its_id(start: StartProgram) -> None:
    name = unique("phoenix")
    owner, reader = start(), start()
    owner.call("register", service=service(name), ttl=TTL)
    reader.watch(name)
    owner.process.kill()
    began = time.monotonic()
    start().call("register", service=service(name, address="127.0.0.1:9999"), ttl=TTL)
    back = reader.expect_change("upsert", since=began)
    assert back["service"]["nodes"][0]["address"] == "127.0.0.1:9999"
    # The predecessor's TTL runs out meanwhile; its successor is not mistaken for it.
    eventually(lambda: time.monotonic() > began + TTL + 1)
    assert [event["event"] for event in reader.seen if event.get("at", 0) >= began] == ["upsert"]


def test_a_predecessor_does_not_withdraw_its_successor(start: StartProgram) -> None:
    name = unique("heir")
    old, new, reader = start(), start(), start()
    old.call("register", service=service(name), ttl=TTL)
    reader.watch(name)
    began = time.monotonic()
    new.call("register", service=service(name, address="127.0.0.1:9090"), ttl=TTL)
    reader.expect_change("upsert", since=began)
    old.expect(lambda event: event["event"] == "renewed" and event["lost"] == [], since=began)
    old.leave()
    eventually(lambda: time.monotonic() > began + 4)
    changes = [event for event in reader.seen if event.get("at", 0) >= began]
    assert [event["event"] for event in changes] == ["upsert"]
    assert reader.call("get", name=name)[0]["nodes"][0]["address"] == "127.0.0.1:9090"


def test_anybody_can_deregister_a_node_and_its_owner_learns_of_it(start: StartProgram) -> None:
    name = unique("stray")
    owner, admin, reader = start(), start(), start()
    owner.call("register", service=service(name), ttl=3)
    reader.watch(name)
    began = time.monotonic()
    admin.call("deregister", service=service(name))
    reader.expect_change("delete", since=began)
    owner.expect(lambda event: event["event"] == "renewed" and node_ids(event["lost"]) == ["n-1"])
    assert reader.call("get", name=name) == []


def test_deregistering_an_unknown_node_is_success(start: StartProgram) -> None:
    assert start().call("deregister", service=service(unique("ghost"))) is None


def test_withdrawn_nodes_do_not_come_back_through_late_answers(start: StartProgram) -> None:
    """zeroconf sends answers that it has queued up to 1.3 s after the goodbye."""
    name = unique("lazarus")
    owner, reader = start(), start()
    reader.watch(name)
    owner.call("register", service=service(name), ttl=TTL)
    for _ in range(4):
        assert node_ids(start().call("get", name=name)) == ["n-1"]  # questions fill the queue
    began = time.monotonic()
    owner.call("deregister", service=service(name))
    reader.expect_change("delete", since=began)
    eventually(lambda: time.monotonic() > began + 2.5)
    assert [e["event"] for e in reader.seen if e.get("at", 0) >= began] == ["delete"]
    assert start().call("get", name=name) == []


def test_hundreds_of_nodes_are_all_found(start: StartProgram) -> None:
    name = unique("crowd")
    owner = start()
    nodes = [
        {
            "id": f"n-{number:03}",
            "address": f"127.0.0.1:{10000 + number}",
            "metadata": {},
        }
        for number in range(200)
    ]
    given = {"name": name, "version": "1", "nodes": nodes}
    began = time.monotonic()
    owner.call("register", service=given, ttl=30)
    registered = time.monotonic()
    reader = start()
    reader.call("list")  # the first question; on a busy machine some answers may come after it
    eventually(lambda: len(node_ids(reader.call("get", name=name))) == len(nodes))
    print(f"200 nodes registered in {registered - began:.2f} s, all read by another process")
