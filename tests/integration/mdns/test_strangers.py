"""What other programs put on the link: hand-made records, damaged ones, hostile ones."""

from __future__ import annotations

import json
import time
import zlib

from tests.integration.mdns.conftest import StartProgram
from tests.support.mdns import (
    SRV,
    TXT,
    TYPE,
    announcement,
    labels,
    node_ids,
    record,
    response,
    sender,
    service,
    text,
    unique,
)
from tests.support.servers import eventually


def identity(name: str, node_id: str = "n-1") -> list[bytes]:
    return [f"s={name}".encode(), b"v=1", f"id={node_id}".encode()]


def details(data: bytes) -> list[bytes]:
    packed = zlib.compress(data, 9)
    return [b"d%d=" % i + packed[i * 240 : i * 240 + 240] for i in range(len(packed) // 240 + 1)]


def test_a_record_published_by_hand_is_found(start: StartProgram) -> None:
    name = unique("manual")
    reader = start()
    reader.watch(name)
    with sender() as send:
        send(announcement(f"Shelf 3 {name}", text(*identity(name))))
    node = reader.expect_change("upsert")["service"]["nodes"][0]
    assert node == {"id": "n-1", "address": "127.0.0.1:8080", "metadata": {}}


def test_a_record_in_several_packets_is_put_together(start: StartProgram) -> None:
    name = unique("parts")
    reader = start()
    reader.watch(name)
    instance = f"{name}.{TYPE}"
    with sender() as send:
        send(response(record(instance, TXT, text(*identity(name)))))
        send(announcement(unique("other"), text(*identity(unique("other")))))
        send(response(record(instance, SRV, bytes(4) + b"\x1f\x90" + labels(f"{name}.local"))))
        send(response(record(f"{name}.local", 1, bytes([127, 0, 0, 1]))))
    assert reader.expect_change("upsert")["service"]["nodes"][0]["address"] == "127.0.0.1:8080"


def test_a_bad_record_is_skipped_and_its_neighbours_stay(start: StartProgram) -> None:
    name = unique("neighbours")
    owner, reader = start(), start()
    reader.watch(name)
    owner.call("register", service=service(name, "good"), ttl=30)
    many = b'{"endpoints":[' + b"{}," * 80000 + b"{}]}"
    deep = b'{"endpoints":' + b'[{"request":' + b'{"values":[' * 5000
    bad: dict[str, bytes] = {
        "no-id": text(f"s={name}".encode()),
        "bad-name": text(b"s=../../etc/passwd", b"id=n-1"),
        "not-utf8": text(b"s=\xff\xfe", b"id=n-1"),
        "cut-short": b"\xffabc",
        "bomb": text(*identity(name, "bomb"), *details(b"[" * (4 << 20))),
        "not-zlib": text(*identity(name, "not-zlib"), b"d0=hello"),
        "cut-zlib": text(*identity(name, "cut"), b"d0=" + zlib.compress(b"{}" * 99)[:-5]),
        "not-an-object": text(*identity(name, "list"), *details(b"[1,2]")),
        "wrong-types": text(*identity(name, "types"), *details(b'{"metadata":{"a":1}}')),
        "deep": text(*identity(name, "deep"), *details(deep)),
        "deep-unknown": text(*identity(name, "unknown"), *details(b'{"x":' + b"[" * 90000)),
        "many": text(*identity(name, "many"), *details(many)),
        "big": text(*identity(name, "big"), *[b"x" * 255] * 33),
        "port-0": text(*identity(name, "port-0")),
    }
    with sender() as send:
        for label, txt in bad.items():
            packet = announcement(f"{label}-{name}", txt)
            if label == "port-0":
                packet = packet.replace(b"\x1f\x90", b"\0\0")
            send(packet)
            send(packet[: len(packet) // 2])
            send(packet + b"trailing")
        send(b"")
        send(b"\0" * 11)
        send(b"\xff" * 600)
        send(announcement(f"last-{name}", text(*identity(name, "last"))))
    reader.expect_change("upsert", "last")
    assert node_ids(reader.call("get", name=name)) == ["good", "last"]
    assert f"'cut-short-{name}" in reader.process.log
    assert reader.process.log.count(f"'bomb-{name}") <= 1
    assert "Traceback" not in reader.process.log


def test_a_bad_record_does_not_replace_a_good_one(start: StartProgram) -> None:
    name = unique("spoiled")
    reader = start()
    reader.watch(name)
    with sender() as send:
        send(announcement(name, text(*identity(name))))
        reader.expect_change("upsert")
        send(announcement(name, text(*identity(name), b"d0=garbage")))
        send(announcement(unique("x"), text(*identity(name, "marker"))))
    reader.expect_change("upsert", "marker")
    assert node_ids(reader.call("get", name=name)) == ["marker", "n-1"]


def test_nobody_takes_a_nodes_place_under_another_label(start: StartProgram) -> None:
    name = unique("place")
    owner, reader = start(), start()
    reader.watch(name)
    with sender() as send:
        send(announcement(f"early-{name}", text(*identity(name))))
        reader.expect_change("upsert")
        owner.call("register", service=service(name, address="127.0.0.1:7000"), ttl=30)
        send(announcement(f"late-{name}", text(*identity(name))))
        send(announcement(unique("x"), text(*identity(name, "marker"))))
    reader.expect_change("upsert", "marker")
    nodes = {node["id"]: node for one in reader.call("get", name=name) for node in one["nodes"]}
    assert nodes["n-1"]["address"] == "127.0.0.1:7000"


def test_a_goodbye_sent_by_hand_is_obeyed(start: StartProgram) -> None:
    name = unique("parting")
    reader = start()
    reader.watch(name)
    with sender() as send:
        send(announcement(name, text(*identity(name))))
        reader.expect_change("upsert")
        send(announcement(name, text(*identity(name)), ttl=0))
    reader.expect_change("delete")


def test_a_record_nobody_answers_for_goes_with_its_ttl(start: StartProgram) -> None:
    name = unique("fleeting")
    reader = start()
    reader.watch(name)
    with sender() as send:
        began = time.monotonic()
        send(announcement(name, text(*identity(name)), ttl=2))
    gone = reader.expect_change("delete")["at"] - began
    print(f"TTL of 2 s: gone after {gone:.2f} s")
    assert 2 <= gone < 4


def test_a_node_defends_itself_against_goodbyes_of_others(start: StartProgram) -> None:
    name = unique("defended")
    owner, reader = start(), start()
    owner.call("register", service=service(name), ttl=30)
    reader.watch(name)
    with sender() as send:
        began = time.monotonic()
        # A goodbye for the same instance and host, but not for this very record.
        send(announcement(_label(name), text(*identity(name)), host=_host(name), ttl=0))
    eventually(lambda: time.monotonic() > began + 2)
    assert node_ids(reader.call("get", name=name)) == ["n-1"]
    assert not [event for event in reader.seen if event["event"] == "delete"]


def test_two_nodes_at_odds_about_their_service_are_both_told(start: StartProgram) -> None:
    name = unique("odds")
    owner, reader = start(), start()
    for number in (1, 2):
        given = service(name, f"n-{number}", metadata={"told-by": str(number)})
        owner.call("register", service=given, ttl=30)
    found = reader.call("get", name=name)
    assert [(one["metadata"], node_ids([one])) for one in found] == [
        ({"told-by": "1"}, ["n-1"]),
        ({"told-by": "2"}, ["n-2"]),
    ]
    assert json.dumps(found)


def _label(name: str) -> str:
    from svcreg_mdns.records import SERVICE_TYPE, instance_name

    return instance_name(name, "n-1").removesuffix(f".{SERVICE_TYPE}")


def _host(name: str) -> str:
    from svcreg_mdns.records import host_name

    return host_name(name, "n-1").removesuffix(".")
