"""Nodes as go-micro's records and back, and what go-micro would not see."""

from __future__ import annotations

import json
import random
import zlib
from typing import Any

import pytest
from msgspec.structs import replace

from svcreg import Endpoint, InvalidServiceError, Node, Service, Value
from svcreg.errors import ProtocolError
from svcreg_mdns.gomicro import packets, records
from svcreg_mdns.gomicro.packets import PTR, Question
from svcreg_mdns.gomicro.records import Names, Seen
from tests.support.mdns import text
from tests.support.mdns_gomicro import captured, gomicro_text

NAMES = Names("micro")
GREETER = Service("greeter", "1.0.0", nodes=[Node("greeter-aaa", "10.77.0.2:8080")])


def written(service: Service = GREETER, names: Names = NAMES) -> records.Written:
    return records.encode(service, service.nodes[0], names, "vm.")


def seen_in(packet: bytes) -> list[Seen]:
    return list(records.nodes_in(packets.decode(packet)))


def read(packet: bytes, names: Names = NAMES) -> Service:
    (seen,) = seen_in(packet)
    return records.locate(records.decode(seen, names), seen, "")


def seen(txt: bytes, instance: str = "greeter-aaa.greeter.micro.") -> Seen:
    return Seen(instance, "vm.", "10.0.0.1", 80, txt, 120)


def strings(data: bytes) -> bytes:
    return text(*[data[start : start + 255] for start in range(0, len(data), 255)])


def packed(plain: bytes) -> bytes:
    return strings(zlib.compress(plain, 9).hex().encode())


@pytest.mark.parametrize("index", [3, 8, 10, 13])
def test_a_node_of_go_micros_is_read(index: int) -> None:
    service = read(captured()[index])
    (node,) = service.nodes
    assert (service.name, node.id, node.address) == ("greeter", "greeter-aaa", "10.77.0.2:8080")
    assert service.version
    assert service.endpoints


def test_all_but_the_compressed_text_is_written_byte_for_byte() -> None:
    announcement, answer, listed, goodbye = (captured()[index] for index in (3, 8, 9, 14))
    (node,) = seen_in(announcement)
    ours = written()._replace(text=node.text)
    assert ours.announcement(120) == announcement
    assert ours.announcement(0) == goodbye
    assert ours.answer(Question("greeter.micro.", PTR), 120) == answer
    assert ours.answer(Question("greeter-aaa.greeter.micro.", packets.ANY), 120) == captured()[13]
    listing = records.listing_records(NAMES, NAMES.listing("greeter"), "vm.")
    question = Question("_services.micro.", PTR)
    assert packets.encode_response(listing, question=question) == listed


def test_the_text_has_the_json_that_go_reads() -> None:
    service = Service(
        "greeter",
        "1",
        endpoints=[Endpoint("Greeter.Hello", Value("Request", "Request"))],
        nodes=[Node("g-1", "10.0.0.1:80", {"zone": "z1"})],
    )
    data = written(service).text
    assert data[0] == 255
    joined = data[1:256] + data[257:]
    plain = json.loads(zlib.decompress(bytes.fromhex(joined.decode())))
    assert list(plain) == ["Metadata", "Service", "Version", "Endpoints"]
    assert plain["Metadata"] == {"zone": "z1"}
    assert plain["Endpoints"][0]["request"] == {"name": "Request", "type": "Request", "values": []}


def test_everything_but_the_services_metadata_survives() -> None:
    chance = random.Random(3)
    metadata = {f"key-{n}": f"{chance.random()} \u00e4\u4e2d" for n in range(40)}
    service = Service(
        "a.b-c_d~e:f+g",
        "1.0-\u03b2",
        endpoints=[Endpoint("E", metadata={"stream": "true"}), Endpoint("F", None, Value("R"))],
        nodes=[Node("x.y.z", "[2001:db8::7]:443", metadata)],
    )
    ours = written(service)
    assert len(ours.text) > 1000  # several strings
    assert read(ours.announcement(90)) == service
    assert read(ours.answer(Question(NAMES.service(service.name), PTR), 90)) == service


def test_null_is_empty() -> None:
    claim = records.decode(seen(gomicro_text("greeter")), NAMES)
    assert (claim.node.metadata, claim.service.endpoints) == ({}, ())


def test_the_address_is_that_of_the_same_packet_and_ipv4_wins() -> None:
    six = replace(GREETER, nodes=[Node("greeter-aaa", "[2001:db8::1]:8080")])
    both = [*written(six)._records(9), *written()._records(9)[1:2]]
    assert read(packets.encode_response(both)).nodes[0].host == "10.77.0.2"
    assert read(packets.encode_response(both[:3])).nodes[0].host == "2001:db8::1"
    assert seen_in(packets.encode_response([both[0], both[2]])) == []


def test_a_link_local_address_gets_the_readers_zone() -> None:
    near = replace(GREETER, nodes=[Node("n", "[fe80::1%eth7]:80")])
    (node,) = seen_in(written(near).announcement(9))
    located = records.locate(records.decode(node, NAMES), node, "3")
    assert located.nodes[0].address == "[fe80::1%3]:80"


def test_names_with_dots_are_told_apart_by_their_text() -> None:
    one = Service("c", "1", nodes=[Node("a.b", "10.0.0.1:80")])
    other = Service("b.c", "1", nodes=[Node("a", "10.0.0.1:80")])
    assert written(one).instance == written(other).instance
    assert [read(written(service).announcement(9)) for service in (one, other)] == [one, other]


def test_another_domain_is_another_world() -> None:
    other = Names("corp.example")
    assert read(written(GREETER, other).announcement(9), other) == GREETER
    with pytest.raises(ProtocolError, match="its name is not"):
        read(written(GREETER, other).announcement(9))
    assert NAMES.marker not in written(GREETER, other).announcement(9)


def test_listed_names_are_those_of_the_list() -> None:
    assert NAMES.listed("greeter._services.micro.") == "greeter"
    assert NAMES.listed("a.b._services.micro.") == "a.b"
    for name in ("_services.micro.", "greeter.micro.", "g._services.micro.x.", "g._services.x."):
        assert NAMES.listed(name) is None


def invisible(field: str, value: Any) -> Service:
    if field in ("address", "id"):
        return replace(GREETER, nodes=[replace(GREETER.nodes[0], **{field: value})])
    return replace(GREETER, **{field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("version", "", "version is empty, and go-micro's watchers"),
        ("address", "host.example:80", "is not an IP address"),
        ("address", "10.0.0.1:0", "no port"),
        ("name", "x" * 64, "service name .* has 64 bytes.*1 to 63"),
        ("name", ".a", "service name .* has 0 bytes"),
        ("name", "a..b", "service name .* has 0 bytes"),
        ("name", "a@b", "service name 'a@b' has an '@'"),
        ("name", "x._services", "go-micro's list of services"),
        ("name", ".".join(["x" * 60] * 4), "a DNS name of 26. bytes"),
        ("id", "x" * 64, "node id .* has 64 bytes"),
        ("id", "a.", "node id .* has 0 bytes"),
        ("id", "a@b", "node id 'a@b' has an '@'"),
    ],
)
def test_what_go_would_not_see_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidServiceError, match=message):
        written(invisible(field, value))


def test_a_record_that_fills_more_than_a_packet_is_refused() -> None:
    noise = random.Random(1).randbytes(4000).hex()
    fits = replace(GREETER, nodes=[Node("g", "10.0.0.1:80", {"n": noise[:7200]})])
    assert read(written(fits).announcement(9)) == fits
    with pytest.raises(InvalidServiceError, match="one packet takes 8952"):
        written(replace(GREETER, nodes=[Node("g", "10.0.0.1:80", {"n": noise})]))
    repeated = replace(GREETER, nodes=[Node("g", "10.0.0.1:80", {"n": "x" * 300_000})])
    with pytest.raises(InvalidServiceError, match=r"refuse to read this record: .*262144"):
        written(repeated)


@pytest.mark.parametrize(
    ("txt", "message"),
    [
        (b"", "damaged|cut short"),
        (b"\xff123", "cut short"),
        (text(b"not hexadecimal"), "not hexadecimal"),
        (text(b"\xc3\xa4"), "not hexadecimal"),
        (text(b"00ff"), "damaged"),
        (strings(zlib.compress(b"{}" * 99)[:-6].hex().encode()), "cut short"),
        (packed(b"[" * (4 << 20)), "expands beyond"),
        (packed(b"[" * 200_000), "cannot be read"),
        (packed(b'{"x":' + b"[" * 200_000), "cannot be read"),
        (packed(b'{"Service":"greeter","Endpoints":[' + b"{}," * 20_000 + b"{}]}"), "memory"),
        (packed(b"[1]"), "cannot be read"),
        (packed(b"{}"), "its name is not"),
        (packed(b'{"Service":"other"}'), "its name is not"),
        (packed(b'{"Service":"greeter","Metadata":{"a":1}}'), "metadata"),
    ],
)
def test_a_bad_text_is_refused(txt: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        records.decode(seen(txt), NAMES)


def test_names_that_are_not_allowed_are_refused() -> None:
    for service, instance in (("../x", "a.../x.micro."), ("greeter", "a b.greeter.micro.")):
        with pytest.raises(ProtocolError):
            records.decode(seen(gomicro_text(service), instance), NAMES)


def test_only_what_dns_can_hold_is_asked_for() -> None:
    for name in ("greeter.micro.", f"{'x' * 63}.micro.", f"{'x.' * 124}micro."):
        assert records.is_dns_name(name)
        packets.decode(packets.encode_query(name, PTR, 1))
    for name in (".micro.", "a..micro.", f"{'x' * 64}.micro.", f"{'x.' * 125}micro."):
        assert not records.is_dns_name(name)
