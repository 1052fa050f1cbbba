"""Filters leave out nodes and services, and nothing of what remains is changed."""

from __future__ import annotations

import pytest

from svcreg import selection
from svcreg.model import Endpoint, Node, Service
from svcreg.selection import Filter
from tests.support.engine import ids

SERVICES = (
    Service(
        "greeter",
        "1",
        {"k": "v"},
        (Endpoint("Greeter.Hello"),),
        (
            Node("a", "h:1", {"zone": "z1", "protocol": "grpc", "env": "prod"}),
            Node("b", "h:2", {"zone": "z2", "protocol": "http", "env": "prod"}),
        ),
    ),
    Service(
        "greeter",
        "2",
        endpoints=(Endpoint("Greeter.Bye"), Endpoint("Greeter.Hello2")),
        nodes=(Node("c", "h:3", {"zone": "z1", "env": "test"}), Node("d", "h:4")),
    ),
)


@pytest.mark.parametrize(
    ("kept_by", "expected"),
    [
        (selection.zone("z1"), ["a", "c"]),
        (selection.zone("z9"), []),
        (selection.protocol("grpc"), ["a"]),
        (selection.env("prod"), ["a", "b"]),
        (selection.metadata("env", "test"), ["c"]),
        (selection.metadata("env", ""), []),  # not set is not empty
        (selection.endpoint("Greeter.Hello"), ["a", "b"]),
        (selection.endpoint("Greeter.Bye"), ["c", "d"]),
        (selection.endpoint("Greeter"), []),
    ],
)
def test_filter_keeps_the_nodes_it_names(kept_by: Filter, expected: list[str]) -> None:
    assert ids(kept_by(SERVICES)) == expected
    assert ids(SERVICES) == ["a", "b", "c", "d"]


def test_service_around_the_nodes_stays_as_it_is() -> None:
    (first, _) = selection.zone("z1")(SERVICES)
    assert first == SERVICES[0].with_nodes(SERVICES[0].nodes[:1])


def test_filters_apply_one_after_the_other() -> None:
    assert ids(selection.zone("z1")(selection.env("test")(SERVICES))) == ["c"]
