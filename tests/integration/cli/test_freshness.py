"""How soon `watch` tells: as fast as the registry itself, over sqlite and over multicast DNS."""

from __future__ import annotations

import json
import statistics
import time
import uuid

import pytest

import svcreg as library
from svcreg import Node, Service
from tests.integration.cli.conftest import Running, Svcreg

ROUNDS = 5  # a busy machine may be late once; the median of these must not be

REGISTRIES = [
    pytest.param(None, id="sqlite"),
    pytest.param(
        "mdns://?interfaces=lo",
        id="mdns",
        marks=pytest.mark.skipif(
            "mdns" not in library.backends(), reason="pip install svcreg-mdns"
        ),
    ),
]


@pytest.fixture
def name(svcreg: Svcreg, request: pytest.FixtureRequest) -> str:
    """Choose the registry and return a name that nobody else uses on it."""
    if request.param is not None:
        svcreg.env["MICRO_REGISTRY"] = request.param
    return f"fresh-{uuid.uuid4().hex[:8]}"


def printed(watching: Running, action: str, node: str) -> float:
    """Return the monotonic time at which the event was read from the pipe."""

    def matches(line: str) -> bool:
        event = json.loads(line)
        return (event["action"], event["service"]["nodes"][0]["id"]) == (action, node)

    watching.wait_for(matches)
    return watching.read_at[[matches(line) for line in watching.lines].index(True)]


@pytest.mark.parametrize("name", REGISTRIES, indirect=True)
def test_create_is_printed_within_100_ms_and_a_withdrawal_within_200(
    svcreg: Svcreg, name: str
) -> None:
    watching = svcreg.start("watch", name)
    with library.open(svcreg.env["MICRO_REGISTRY"]) as registry:
        first = registry.register(Service(name, nodes=[Node("n-0", "127.0.0.1:80")]))
        printed(watching, "create", "n-0")  # from here on it watches
        creates, deletes = [], []
        for number in range(1, ROUNDS + 1):
            service = Service(name, nodes=[Node(f"n-{number}", "127.0.0.1:80")])
            registration = registry.register(service)
            registered = time.monotonic()
            creates.append(printed(watching, "create", f"n-{number}") - registered)
            closing = time.monotonic()
            registration.close()
            deletes.append(printed(watching, "delete", f"n-{number}") - closing)
        first.close()
    assert statistics.median(creates) < 0.1, creates
    assert statistics.median(deletes) < 0.2, deletes


@pytest.mark.slow
@pytest.mark.parametrize("name", REGISTRIES, indirect=True)
def test_killed_node_is_deleted_within_its_ttl_of_5_s_and_2_more(svcreg: Svcreg, name: str) -> None:
    watching = svcreg.start("watch", name)
    running = svcreg.register(name, "127.0.0.1:80", "--ttl", "5", "--node-id", "n-1")
    printed(watching, "create", "n-1")
    running.process.kill()
    killed = time.monotonic()
    assert printed(watching, "delete", "n-1") - killed < 7
