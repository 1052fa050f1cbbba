"""A bad record is left out, counted and named once; its neighbours stay."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from svcreg.engine import sieve as module
from svcreg.engine.sieve import Sieve
from svcreg.errors import ProtocolError
from svcreg.hookspecs import Delta, Snapshot
from svcreg.model import Node, Service
from tests.support.engine import NAME, ids, service

BAD: dict[str, Any] = {
    "no service": "garbage",
    "none": None,
    "another service": service("b", name="other"),
    "bad version": Service(NAME, 5, nodes=(Node("b", "h:1"),)),  # type: ignore[arg-type]
    "nodes that cannot be listed": Service(NAME, nodes=7),  # type: ignore[arg-type]
    "endpoints that cannot be listed": Service(NAME, endpoints=7),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_service_is_left_out_and_its_neighbours_stay(bad: Any) -> None:
    sieve = Sieve("acme")
    assert ids(sieve.services([service("a"), bad, service("c")], NAME)) == ["a", "c"]
    assert sieve.skipped == 1


def test_bad_node_is_left_out_of_its_service() -> None:
    sieve = Sieve("acme")
    nodes = (Node("a", "h:1"), Node("../b", "h:1"), Node("c", "no port at all"))
    (found,) = sieve.services([Service(NAME, "1", {"k": "v"}, nodes=nodes)], NAME)
    assert ids([found]) == ["a", "c"]  # an address of another kind is not ours to judge
    assert (found.version, found.metadata) == ("1", {"k": "v"})
    assert sieve.skipped == 1


def test_sound_service_is_passed_on_as_it_is() -> None:
    sound = service("a", "b")
    assert Sieve("acme").services([sound], NAME)[0] is sound


def test_watch_of_every_service_takes_any_name() -> None:
    found = Sieve("acme").services([service("a"), service("b", name="other")], None)
    assert ids(found) == ["a", "b"]


def test_snapshots_and_deltas_keep_their_kind_and_revision() -> None:
    sieve = Sieve("acme")
    assert sieve.item(Snapshot((service("a"), BAD["none"]), "7"), NAME) == Snapshot(
        (service("a"),), "7"
    )
    delta = Delta((service("a"), BAD["none"]), (BAD["none"], service("b")), "8")
    assert sieve.item(delta, NAME) == Delta((service("a"),), (service("b"),), "8")
    assert sieve.skipped == 3


def test_watch_that_yields_anything_else_breaks_the_contract() -> None:
    with pytest.raises(
        ProtocolError, match=r"acme: svcreg_watch yielded a tuple; .*svcreg.Snapshot"
    ):
        Sieve("acme").item((service("a"),), NAME)


def test_names_are_sorted_each_once_and_without_bad_ones() -> None:
    found: list[Any] = ["b", "a", "b", "../c", None]
    assert Sieve("acme").names(found) == ("a", "b")


def test_each_bad_record_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "svcreg")
    sieve = Sieve("acme")
    for _ in range(3):
        sieve.names(["../a", "../b"])
    assert sieve.skipped == 6
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "acme" in lines[0]
    assert "../a" in lines[0]


def test_log_does_not_grow_with_the_garbage(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NAMED_LIMIT", 3)
    caplog.set_level(logging.WARNING, "svcreg")
    sieve = Sieve("acme")
    sieve.names([f"../{n}" for n in range(100)])
    assert sieve.skipped == 100
    assert len(caplog.records) == 3
