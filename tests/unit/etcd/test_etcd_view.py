"""Watch events become deltas, each change once."""

from __future__ import annotations

from typing import Any, cast

from svcreg import Node, Service
from svcreg.codec import encode_service
from svcreg_etcd import messages as m
from svcreg_etcd.records import Keyspace
from svcreg_etcd.watcher import Reader, View, merge

KEYSPACE = Keyspace("go-micro")


def service(node_id: str, *more: str, name: str = "svc", **metadata: str) -> Service:
    nodes = tuple(Node(one, "10.0.0.5:80", metadata) for one in (node_id, *more))
    return Service(name, nodes=nodes)


def put(record: Service, key: str = "", revision: int = 7) -> Any:
    at = f"/micro/registry/svc/{key or record.nodes[0].id}".encode()
    kv = {"key": at, "value": encode_service(record), "mod_revision": revision}
    return m.WatchResponse(events=[{"kv": kv}]).events[0]


def delete(key: str, revision: int = 8) -> Any:
    at = f"/micro/registry/svc/{key}".encode()
    event = {"type": m.EVENT_DELETE, "kv": {"key": at, "mod_revision": revision}}
    return m.WatchResponse(events=[event]).events[0]


def view(*records: Service) -> View:
    known = {f"/micro/registry/svc/{one.nodes[0].id}".encode(): one for one in records}
    return View(Reader(cast(Any, None), KEYSPACE), "svc", known)


def test_batch_is_one_delta() -> None:
    (delta,) = view(service("a")).apply([put(service("b")), put(service("c")), delete("a")])
    assert delta.upserts == (service("b", "c"),)
    assert delta.deletes == (service("a"),)
    assert delta.revision == "8"


def test_key_that_changes_twice_is_in_two_deltas() -> None:
    first, second = view(service("a")).apply([delete("a"), put(service("a", zone="z2"))])
    assert (first.upserts, first.deletes) == ((), (service("a"),))
    assert (second.upserts, second.deletes) == ((service("a", zone="z2"),), ())


def test_value_that_did_not_change_is_no_event() -> None:
    assert list(view(service("a")).apply([put(service("a"))])) == []


def test_delete_of_what_is_unknown_is_no_event() -> None:
    assert list(view().apply([delete("a"), delete("a")])) == []


def test_other_service_in_the_same_folder_is_not_ours() -> None:
    """`a/b` and `a-b` share one."""
    assert list(view().apply([put(service("x", name="s/vc"), "x")])) == []


def test_garbage_in_place_of_a_record_is_its_end() -> None:
    bad = m.WatchResponse(events=[{"kv": {"key": b"/micro/registry/svc/a", "value": b"x"}}])
    (delta,) = view(service("a")).apply(bad.events)
    assert (delta.upserts, delta.deletes) == ((), (service("a"),))


def test_nodes_that_leave_a_record_are_deleted() -> None:
    (delta,) = view(service("a", "b", "c")).apply([put(service("a"))])
    assert delta.upserts == (service("a"),)
    assert delta.deletes == (service("b", "c"),)


def test_records_that_differ_in_more_than_nodes_stay_apart() -> None:
    other = Service("svc", "", {"team": "x"}, nodes=(Node("b", "h:1"),))
    assert merge([service("a"), other, service("c")]) == (service("a", "c"), other)
