"""DNS-SD records: what goes in comes out, and what cannot be carried is refused."""

from __future__ import annotations

import base64
import hashlib
import logging
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svcreg import Endpoint, InvalidServiceError, Node, ProtocolError, Service, Value
from svcreg_mdns import records
from svcreg_mdns.records import Stamp
from tests.support.mdns import text

STAMP = Stamp(1_700_000_000_000, 0xDEADBEEF)
NODE = Node("g-1", "10.0.0.5:8080", {"zone": "z1"})
GREETER = Service("greeter", "1.2.0", {"team": "a"}, [Endpoint("Hello", Value("In", "In"))], [NODE])

names = st.text("abcXYZ019._~:@+-", min_size=1, max_size=80).filter(
    lambda name: name not in {".", ".."}
)
metadata = st.dictionaries(st.text(max_size=30), st.text(max_size=60), max_size=8)


def round_trip(service: Service) -> Service:
    node = service.nodes[0]
    written = records.encode(service, node, STAMP)
    claim = records.decode(written.text)
    assert claim.stamp == STAMP
    return records.locate(claim, [written.address], written.port)


@given(
    name=names, node_id=names, version=st.text(max_size=60), of_service=metadata, of_node=metadata
)
def test_every_record_survives_the_round_trip(
    name: str,
    node_id: str,
    version: str,
    of_service: dict[str, str],
    of_node: dict[str, str],
) -> None:
    node = Node(node_id, "10.0.0.5:8080", of_node)
    service = Service(name, version, of_service, GREETER.endpoints, [node])
    assert round_trip(service) == service


@pytest.mark.parametrize("address", ["10.0.0.5:1", "[::1]:65535", "[2001:db8::7]:443"])
def test_ipv4_and_ipv6_addresses_survive(address: str) -> None:
    service = GREETER.with_nodes([Node("g-1", address)])
    assert round_trip(service) == service


def test_the_zone_of_an_address_stays_on_this_machine() -> None:
    written = records.encode(GREETER, Node("g-1", "[fe80::1%eth7]:80"), STAMP)
    assert written.address == "fe80::1"


def test_the_instance_name_is_a_clean_label_and_a_hash() -> None:
    digest = hashlib.sha256(b"greeter\0host.example:8080").digest()
    suffix = base64.b32encode(digest)[:12].decode().lower()
    name = records.instance_name("greeter", "host.example:8080")
    assert name == f"host_example_8080-{suffix}._micro._tcp.local."
    assert records.host_name("greeter", "host.example:8080") == f"m-{suffix}.local."


def test_labels_stay_within_63_bytes_and_apart() -> None:
    found = {records.instance_name("s", "x" * 200 + end) for end in "abc.:~"}
    assert len(found) == 6
    assert all(len(name.split(".")[0]) <= 63 for name in found)
    assert (
        len({name.lower() for name in (records.instance_name("s", i) for i in ("Ab", "aB"))}) == 2
    )


def test_the_text_begins_with_its_version_and_has_short_strings() -> None:
    written = records.encode(GREETER.with_nodes([NODE]), NODE, STAMP).text
    assert written.startswith(b"\x09txtvers=1\x09s=greeter\x07v=1.2.0\x06id=g-1")
    assert b"g=018bcfe56800-deadbeef" in written


def test_nothing_but_the_identity_is_written_where_there_is_nothing_else() -> None:
    node = Node("g-1", "10.0.0.5:80")
    assert b"d0=" not in records.encode(Service("greeter", nodes=[node]), node, STAMP).text


@pytest.mark.parametrize(
    ("service", "node", "message"),
    [
        (GREETER, Node("g-1", "db.example:80"), "address 'db.example:80' is not an IP address"),
        (GREETER, Node("g-1", "10.0.0.5"), "no port from 1 to 65535"),
        (GREETER, Node("g-1", "10.0.0.5:0"), "no port from 1 to 65535"),
        (GREETER, Node("g-1", "10.0.0.5:70000"), "no port from 1 to 65535"),
        (Service("x" * 253), NODE, "service name takes 253 bytes; mDNS has room for 252"),
        (Service("x", "\u00e4" * 127), NODE, "version takes 254 bytes"),
        (GREETER, Node("x" * 253, "10.0.0.5:80"), "node id takes 253 bytes"),
    ],
)
def test_what_dns_cannot_carry_is_refused_by_field(
    service: Service, node: Node, message: str
) -> None:
    with pytest.raises(InvalidServiceError, match=message) as caught:
        records.encode(service, node, STAMP)
    assert str(caught.value).startswith("mdns: service ")


def test_a_record_above_8000_bytes_is_refused_and_one_below_passes() -> None:
    def node(length: int) -> Node:
        noise = hashlib.shake_256(b"seed").hexdigest(length)  # compresses to about half
        return Node("g-1", "10.0.0.5:80", {"noise": noise})

    with pytest.raises(InvalidServiceError, match=r"record of \d+ bytes.*mDNS takes 8000"):
        records.encode(GREETER, node(8000), STAMP)
    written = records.encode(GREETER, node(6000), STAMP)
    assert records.FRAME_BYTES < written.size <= records.RECORD_LIMIT
    assert records.decode(written.text).node.metadata == node(6000).metadata


def test_metadata_that_others_would_refuse_to_read_is_refused() -> None:
    with pytest.raises(InvalidServiceError, match="refuse to read"):
        records.encode(GREETER, Node("g-1", "10.0.0.5:80", {"a": "x" * 300_000}), STAMP)


def test_a_schema_nested_deeper_than_others_read_is_refused() -> None:
    value = Value("leaf")
    for _ in range(40):
        value = Value("v", "v", [value])
    service = Service("greeter", endpoints=[Endpoint("Hello", value)], nodes=[NODE])
    with pytest.raises(InvalidServiceError, match=r"refuse to read this record: .*nested"):
        records.encode(service, NODE, STAMP)


def test_a_record_written_by_hand_needs_only_its_identity() -> None:
    claim = records.decode(text(b"s=greeter", b"v=1.0", b"id=g-1"))
    assert (claim.service, claim.node, claim.stamp) == (
        Service("greeter", "1.0"),
        Node("g-1", ""),
        None,
    )
    assert records.decode(text(b"id=g-1", b"s=greeter")).service.version == ""


def test_unknown_and_repeated_keys_and_flags_are_tolerated() -> None:
    claim = records.decode(text(b"S=greeter", b"flag", b"", b"x=1", b"id=g-1", b"s=other"))
    assert claim.service.name == "greeter"


def details(data: bytes) -> list[bytes]:
    packed = zlib.compress(data, 9)
    return [b"d%d=" % n + packed[n * 240 :][:240] for n in range(len(packed) // 240 + 1)]


IDENTITY = [b"s=greeter", b"v=1", b"id=g-1"]


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        (b"", "lacks 's'"),
        (text(b"s=greeter"), "lacks 'id'"),
        (text(b"s", b"id=g-1"), "lacks 's'"),
        (b"\x05s=a", "cut short"),
        (b"\xff" * 20, "cut short"),
        (text(b"s=a/b", b"id=g-1"), "service name 'a/b' is not allowed"),
        (text(b"s=..", b"id=g-1"), "not allowed"),
        (text(b"s=", b"id=g-1"), "is empty"),
        (text(b"s=greeter", b"id=a b"), "node id 'a b' is not allowed"),
        (text(b"s=\xff", b"id=g-1"), "not UTF-8"),
        (text(*IDENTITY, *[b"x" * 255] * 32), "at most 8000 are read"),
        (text(*IDENTITY, b"d0=hello"), "damaged"),
        (text(*IDENTITY, b"d0=" + zlib.compress(b"{}")[:-1]), "cut short"),
        (text(*IDENTITY, *details(b" " * (4 << 20))), "expands beyond 262144 bytes"),
        (text(*IDENTITY, *details(b"[]")), "cannot be read"),
        (text(*IDENTITY, *details(b"\xff\xfe")), "cannot be read"),
        (text(*IDENTITY, *details(b'{"metadata":[]}')), "metadata JSON cannot be read"),
        (text(*IDENTITY, *details(b'{"metadata":{"a":1}}')), "metadata JSON cannot be read"),
        (text(*IDENTITY, *details(b'{"endpoints":{}}')), "endpoints JSON cannot be read"),
        (text(*IDENTITY, *details(b'{"endpoints":[1]}')), "endpoints JSON cannot be read"),
        (text(*IDENTITY, *details(b'{"node":"x"}')), "metadata JSON cannot be read"),
        (text(*IDENTITY, *details(b'{"x":' + b"[" * 100_000)), "cannot be read"),
        (
            text(*IDENTITY, *details(b'{"endpoints":[' + b"{}," * 50_000 + b"{}]}")),
            "bytes of memory",
        ),
        (
            text(
                *IDENTITY,
                *details(b'{"endpoints":[{"request":' + b'{"values":[' * 99 + b"]}" * 99 + b"}]}"),
            ),
            "nested more than 32 levels",
        ),
    ],
)
def test_hostile_records_are_refused(hostile: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        records.decode(hostile)


@given(st.binary(max_size=600))
def test_noise_is_refused_and_nothing_worse(noise: bytes) -> None:
    with pytest.raises(ProtocolError):
        records.decode(noise)


@given(st.data())
def test_a_damaged_record_is_read_or_refused(data: st.DataObject) -> None:
    written = bytearray(records.encode(GREETER, NODE, STAMP).text)
    for _ in range(data.draw(st.integers(1, 6))):
        written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    try:
        records.decode(bytes(written))
    except ProtocolError as error:
        logging.getLogger(__name__).debug("refused: %s", error)


def test_later_content_of_one_registration_has_the_greater_stamp() -> None:
    assert Stamp(1, 9) < Stamp(2, 0)
    assert Stamp.decode(STAMP.encode()) == STAMP
    assert Stamp.decode(b"yesterday") is None


def test_everybody_chooses_the_same_address() -> None:
    claim = records.decode(text(*IDENTITY))
    known = ["fe80::1%3", "2001:db8::1", "169.254.0.9", "10.0.0.9", "10.0.0.10"]
    assert records.locate(claim, known, 80).nodes[0].address == "10.0.0.10:80"
    assert records.locate(claim, known[:2], 80).nodes[0].address == "[2001:db8::1]:80"
    assert records.locate(claim, known[:1], 80).nodes[0].address == "[fe80::1%3]:80"


def test_nodes_are_grouped_by_version_and_by_what_they_say_of_their_service() -> None:
    def one(version: str, node_id: str, **more: str) -> Service:
        return Service("greeter", version, more, nodes=[Node(node_id, "10.0.0.5:80")])

    grouped = records.group([one("2", "d"), one("1", "b"), one("1", "a"), one("1", "c", x="y")])
    assert [(g.version, [node.id for node in g.nodes]) for g in grouped] == [
        ("1", ["a", "b"]),
        ("1", ["c"]),
        ("2", ["d"]),
    ]
