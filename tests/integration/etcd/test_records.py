"""Keys and values as others write and read them, and what else lies below the prefix."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator

import pytest

import svcreg
from svcreg import Endpoint, Node, Service, Value
from svcreg.codec import encode_service
from svcreg.testing.conformance.faces import BlockingClient
from tests.integration.etcd.conftest import node
from tests.support.etcd import Etcd, _b64, unique, wait_for

pytestmark = pytest.mark.server("etcd")


@pytest.fixture
def client(etcd: Etcd, prefix: str) -> Iterator[BlockingClient]:
    client = BlockingClient(f"etcd://{etcd.endpoint}?prefix={prefix}")
    yield client
    client.end()


def test_key_and_value_are_go_micros(etcd: Etcd) -> None:
    name = unique("greeter")
    service = Service(
        name,
        "1.2.0",
        {"team": "x"},
        (Endpoint("Greeter.Hello", Value("Request", "Request", (Value("name", "string"),))),),
        (Node("n-1", "10.0.0.5:8080", {"zone": "z1"}), Node("n-2", "10.0.0.6:8080")),
    )
    with contextlib.closing(svcreg.open(f"etcd://{etcd.endpoint}")) as registry:
        registry.register(service, ttl=30)
        found = etcd.items(f"/micro/registry/{name}/")
        assert set(found) == {f"/micro/registry/{name}/n-1", f"/micro/registry/{name}/n-2"}
        first = found[f"/micro/registry/{name}/n-1"]
        assert json.loads(first["value"]) == {
            "name": name,
            "version": "1.2.0",
            "metadata": {"team": "x"},
            "endpoints": [
                {
                    "name": "Greeter.Hello",
                    "metadata": {},
                    "request": {
                        "name": "Request",
                        "type": "Request",
                        "values": [{"name": "name", "type": "string", "values": []}],
                    },
                    "response": None,
                }
            ],
            "nodes": [{"id": "n-1", "address": "10.0.0.5:8080", "metadata": {"zone": "z1"}}],
        }
        (lease,) = {item["lease"] for item in found.values()}
        granted = etcd.call("lease/timetolive", ID=lease)
        assert int(granted["grantedTTL"]) == 30
        other = registry.register(Service(unique("svc"), nodes=(Node("n", "10.0.0.5:80"),)), ttl=60)
        assert {*etcd.leases()} >= {lease}
        other.close()
    assert etcd.items(f"/micro/registry/{name}/") == {}
    assert lease not in etcd.leases()  # went with the last registration


def test_fraction_of_a_second_is_rounded_up(
    client: BlockingClient, etcd: Etcd, prefix: str
) -> None:
    client.register(node(unique(), "n"), ttl=30.2)
    (item,) = etcd.items(prefix).values()
    assert int(etcd.call("lease/timetolive", ID=item["lease"])["grantedTTL"]) == 31


def test_registrations_of_one_ttl_share_a_lease_and_move_with_it(
    client: BlockingClient, etcd: Etcd, prefix: str
) -> None:
    name = unique("svc")
    for number in range(5):
        client.register(node(name, f"n{number}"), ttl=30)
    (first,) = {item["lease"] for item in etcd.items(prefix).values()}
    for number in range(5):
        client.register(node(name, f"n{number}"), ttl=60)
    (second,) = {item["lease"] for item in etcd.items(prefix).values()}
    assert first != second
    assert first not in etcd.leases()  # nothing hangs on it any more


def test_what_go_programs_of_any_version_wrote_is_read(
    client: BlockingClient, etcd: Etcd, prefix: str
) -> None:
    """Nil maps and lists are null in Go's JSON; older and newer versions have other fields."""
    name = unique("svc")
    bare = {"name": name, "version": "latest", "metadata": None, "endpoints": None}
    at = {"address": "10.0.0.5:8080", "metadata": None}
    etcd.put(f"{prefix}{name}/a", json.dumps(bare | {"nodes": [at | {"id": "a"}]}))
    old = {"nodes": [at | {"id": "b", "port": 8080}], "options": {"x": [1]}}
    etcd.put(f"{prefix}{name}/b", json.dumps(bare | old))
    endpoint = {"name": "E", "request": None, "response": {"name": "R", "type": "R"}}
    etcd.put(
        f"{prefix}{name}/c",
        json.dumps(bare | {"endpoints": [endpoint], "nodes": [at | {"id": "c"}]}),
    )
    found = client.get(name)
    assert {n.id for service in found for n in service.nodes} == {"a", "b", "c"}
    assert {service.version for service in found} == {"latest"}


def test_foreign_records_are_skipped_and_named_once(
    client: BlockingClient, etcd: Etcd, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    name = unique("svc")
    etcd.put(f"{prefix}{name}/good", encode_service(node(name, "good")))
    foreign = {
        "garbage": b"\xff\x00\xfe",
        "list": b"[1, 2]",
        "other": b'{"hello": "world"}',
        "no-nodes": b'{"name": "x", "nodes": []}',
        "empty": b"",
        "deep": b"[" * 100_000,
        "bad\nkey": b"x",
    }
    for leaf, value in foreign.items():
        etcd.put(f"{prefix}{name}/{leaf}", value)
    etcd.put(f"{prefix}stray", "x")
    etcd.call("kv/put", key=_b64(prefix.encode() + b"\xff/\xff"), value=_b64(b"x"))
    watching, everything = client.watch(name), client.watch()
    wait_for(lambda: watching.seen("good") == ["create"])
    wait_for(lambda: everything.seen("good") == ["create"])
    assert client.get(name) == (node(name, "good"),)
    assert client.list() == (name,)
    etcd.put(f"{prefix}{name}/late", b"garbage")
    etcd.put(f"{prefix}{name}/next", encode_service(node(name, "next")))
    wait_for(lambda: watching.seen("next") == ["create"])
    etcd.put(f"{prefix}{name}/good", b"garbage now")  # is not what it was
    wait_for(lambda: watching.seen("good") == ["create", "delete"])
    said = [r.getMessage() for r in caplog.records if "is skipped" in r.getMessage()]
    for leaf in ("garbage", "list", "other", "no-nodes", "empty", "deep", "late", "stray"):
        assert len([line for line in said if f"{leaf}'" in line]) == 1, leaf
    assert all(line.isprintable() for line in said)


def test_every_event_of_one_transaction_is_seen(
    client: BlockingClient, etcd: Etcd, prefix: str
) -> None:
    name = unique("svc")
    etcd.put(f"{prefix}{name}/old", encode_service(node(name, "old")))
    watching = client.watch(name)
    wait_for(lambda: watching.seen("old"))
    puts = [
        {
            "requestPut": {
                "key": _b64(f"{prefix}{name}/n{number}".encode()),
                "value": _b64(encode_service(node(name, f"n{number}"))),
            }
        }
        for number in range(5)
    ]
    delete = {"requestDeleteRange": {"key": _b64(f"{prefix}{name}/old".encode())}}
    etcd.call("kv/txn", success=[*puts, delete])
    wait_for(lambda: len(watching.events) == 7)
    assert watching.seen("old") == ["create", "delete"]
    assert all(watching.seen(f"n{number}") == ["create"] for number in range(5))


def test_lease_that_ends_takes_all_its_keys_and_no_value_is_needed_to_understand(
    client: BlockingClient, etcd: Etcd, prefix: str
) -> None:
    name = unique("svc")
    lease = int(etcd.call("lease/grant", TTL=60)["ID"])
    for number in range(3):
        key = f"{prefix}{name}/n{number}"
        etcd.put(key, encode_service(node(name, f"n{number}")), lease)
    watching = client.watch(name)
    wait_for(lambda: len(watching.events) == 3)
    etcd.call("lease/revoke", ID=lease)
    wait_for(lambda: not watching.state())
    etcd.compact()  # with it the previous values are gone for good
    assert [event.action for event in watching.events] == ["create"] * 3 + ["delete"] * 3


def test_several_nodes_under_one_key_come_and_go_one_by_one(
    client: BlockingClient, etcd: Etcd, prefix: str
) -> None:
    name = unique("svc")
    nodes = [Node(f"n{number}", f"10.0.0.{number}:80") for number in range(3)]
    etcd.put(f"{prefix}{name}/x", encode_service(Service(name, nodes=nodes)))
    watching = client.watch(name)
    wait_for(lambda: len(watching.events) == 3)
    etcd.put(f"{prefix}{name}/x", encode_service(Service(name, nodes=nodes[:1])))
    wait_for(lambda: set(watching.state()) == {"n0"})


def test_batch_of_ten_megabytes_is_one_item(
    client: BlockingClient, etcd: Etcd, prefix: str
) -> None:
    """Ten records of nearly a megabyte each go in one revision, and come in another."""
    name = unique("svc")
    lease = int(etcd.call("lease/grant", TTL=60)["ID"])
    watching = client.watch(name)
    client.get(name)
    for number in range(10):
        record = encode_service(node(name, f"n{number}", fill="x" * 1_000_000))
        etcd.put(f"{prefix}{name}/n{number}", record, lease)
    wait_for(lambda: len(watching.state()) == 10, 20)
    etcd.call("lease/revoke", ID=lease)
    wait_for(lambda: not watching.state(), 20)


def test_record_that_etcd_would_not_take_hides_no_neighbour(
    client: BlockingClient, etcd: Etcd, prefix: str
) -> None:
    name = unique("svc")
    with pytest.raises(svcreg.InvalidServiceError, match="bytes"):
        client.register(node(name, "n", fill="x" * 1_100_000))
    client.register(node(name, "n", fill="x" * 900_000))
    assert set(etcd.items(prefix)) == {f"{prefix}{name}/n"}


@pytest.mark.parametrize(
    ("layout", "key", "value"),
    [
        (
            "ego",
            "/{name}/10.0.0.5:9000",
            {"Addr": "10.0.0.5:9000", "ServerName": "x", "Attributes": None},
        ),
        (
            "kratos",
            "/microservices/{name}/4f0c",
            {
                "id": "4f0c",
                "name": "{name}",
                "version": "v1",
                "metadata": {"zone": "z1"},
                "endpoints": ["http://10.0.0.5:8000", "grpc://10.0.0.5:9000?isSecure=false"],
            },
        ),
    ],
)
def test_services_of_other_systems_are_found_where_they_keep_them(
    etcd: Etcd, layout: str, key: str, value: dict[str, object]
) -> None:
    name = unique("svc")
    etcd.put(key.format(name=name), json.dumps(value).replace("{name}", name))
    with contextlib.closing(svcreg.open(f"etcd://{etcd.endpoint}?layout={layout}")) as registry:
        (service,) = registry.get(name)
        assert service.name == name
        assert [found.address for found in service.nodes] == ["10.0.0.5:9000"]
        assert name in registry.list()
        with registry.watch(name) as events:
            assert next(iter(events)).service.nodes == service.nodes


@pytest.mark.parametrize("layout", ["ego", "kratos"])
def test_registering_writes_the_chosen_layout(etcd: Etcd, layout: str) -> None:
    name = unique("svc")
    url = f"etcd://{etcd.endpoint}?layout={layout}"
    service = Service(name, "v2", nodes=(Node("n-1", "10.0.0.5:9000", {"protocol": "grpc"}),))
    with (
        contextlib.closing(svcreg.open(url)) as here,
        contextlib.closing(svcreg.open(url)) as there,
    ):
        held = here.register(service, ttl=30)
        wait_for(lambda: there.get(name) == (service,))
        expected: dict[str, tuple[str, dict[str, object]]] = {
            "ego": (
                f"/{name}/10.0.0.5:9000",
                {"Addr": "10.0.0.5:9000", "ServerName": name},
            ),
            "kratos": (
                f"/microservices/{name}/n-1",
                {"id": "n-1", "name": name, "endpoints": ["grpc://10.0.0.5:9000"]},
            ),
        }
        key, fields = expected[layout]
        value = json.loads(etcd.items(key)[key]["value"])
        assert fields.items() <= value.items()
        held.close()
        wait_for(lambda: there.get(name) == ())
        assert etcd.items(key) == {}
