"""What only mDNS has: go-micro's short window, and its servers that answer answers."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.conftest import World
from tests.interop.recording import link_up
from tests.support.etcd import unique
from tests.support.gomicro import GoMicro, Peer, Python
from tests.support.gomicro_link import PORT, Link, Packet, is_question, is_response, question
from tests.support.gomicro_services import register, seen, service
from tests.support.namespaces import Host, connect, hosts, require_namespaces
from tests.support.servers import PROBE_SECONDS, eventually

pytestmark = [
    pytest.mark.server("go-micro"),
    pytest.mark.root,
    pytest.mark.xdist_group("interop-go-micro"),
]

NODES = 200
NAMES = ("storm-0", "storm-1", "storm-2")  # nodes of go-micro's servers
WINDOW = 0.5  # seconds over which packets are counted
CALM = 30  # packets in a window while nobody asks; announcements are all that is left
LABEL = "\5micro\0"  # how the names of go-micro's dialect end
LOOP = 5_000  # packets that only a loop makes


def test_go_micro_finds_every_node_of_a_process_in_its_tenth_of_a_second(link: World) -> None:
    name = unique("crowd")
    records = [service(name, f"{name}-{number}", zone=f"z{number}") for number in range(NODES)]
    for record in records:
        register(link.python, record, ttl=60)
    eventually(lambda: len(link.go.nodes(name)) == NODES)
    for record in records:
        link.python.call("deregister", service=record)
    eventually(lambda: not link.go.nodes(name))


def test_programs_on_two_hosts_find_each_other(two_hosts: list[Host], tmp_path: Path) -> None:
    here, there = two_hosts
    with (
        GoMicro(tmp_path / "go.log", "mdns", prefix=here.prefix) as go,
        Python(tmp_path / "python.log", "mdns", prefix=there.prefix) as python,
    ):
        for writer, reader, name in ((go, python, "in-go"), (python, go, "in-python")):
            record = service(name, f"{name}-1", zone="z1")
            reader.call("watch", name=name)
            register(writer, record)
            wait_for_nodes(reader, name, {f"{name}-1"})
            wait_for_names(reader, {name})
            # A watch of go-micro begins to listen a moment later than it says; there is a second
            # announcement after a second.
            wait_for_actions(reader, name, ["create"])
            writer.call("deregister", service=record)
            wait_for_nodes(reader, name, set())
            wait_for_actions(reader, name, ["create", "delete"])


def test_our_packets_never_start_go_micros_loop(
    go_servers: Host, go_client: Peer, tmp_path: Path
) -> None:
    """Do everything that makes svcreg and go-micro send, all on one host."""
    with (
        Link(tmp_path / "link.log", go_servers.prefix) as link,
        Python(tmp_path / "python.log", "mdns", prefix=go_servers.prefix) as python,
    ):
        for peer in (python, go_client):
            peer.call("watch", name="")
            peer.call("watch", name="storm")
        for step in ("1", "2"):
            register(python, service("storm", "storm-python", step=step))
            register(python, service("ours", "ours-python", step=step))
        for peer in (python, go_client):
            wait_for_nodes(peer, "storm", {"storm-python", *NAMES})
            wait_for_names(peer, {"ours", "storm"})
        # A question from port 5353 is answered to the group, where go-micro's servers listen.
        link.ask("ours.micro.", PORT)
        link.wait(lambda packet: is_response(packet) and "ours-python" in text(packet))
        for name in ("storm", "ours"):
            python.call("deregister", service=service(name, f"{name}-python"))
        eventually(lambda: is_calm(go_servers))
        # What would start it; only the link's own question is of that kind.
        asked = [p for p in link.packets if is_question(p) and p["from"] == PORT]
        assert [text(packet) for packet in asked if LABEL in text(packet)] == [
            question("ours.micro.").decode()
        ]


def test_question_from_port_5353_does_start_it(go_servers: Host, tmp_path: Path) -> None:
    """The test above could fail: this is what the loop looks like."""
    eventually(lambda: is_calm(go_servers))
    with Link(tmp_path / "link.log", go_servers.prefix) as link:
        before = packets(go_servers)
        link.ask("storm.micro.", PORT)
        eventually(lambda: packets(go_servers) - before > LOOP)


@pytest.fixture
def two_hosts() -> Iterator[list[Host]]:
    """Two hosts and a cable, which is their way to everywhere."""
    require_namespaces()
    with hosts(2) as made:
        connect(made[0], made[1])
        for host in made:
            host.ip("route", "add", "default", "dev", "link0")
        yield made


@pytest.fixture
def go_client(go_servers: Host, tmp_path: Path) -> Iterator[Peer]:
    """A program of go-micro that registers nothing."""
    with GoMicro(tmp_path / "client.log", "mdns", prefix=go_servers.prefix) as go:
        yield go


@pytest.fixture
def go_servers(tmp_path: Path) -> Iterator[Host]:
    """A host with some servers of go-micro, each with a node of `storm`, all killed in the end."""
    require_namespaces()
    with hosts(1) as (host,), contextlib.ExitStack() as stack:
        link_up(host)
        for name in NAMES:
            go = GoMicro(tmp_path / f"{name}.log", "mdns", prefix=host.prefix)
            stack.enter_context(go)
            register(go, service("storm", name))
        yield host


def wait_for_nodes(reader: Peer, name: str, ids: set[str]) -> None:
    eventually(lambda: set(reader.nodes(name)) == ids)


def wait_for_names(reader: Peer, names: set[str]) -> None:
    eventually(lambda: reader.names() == names)


def wait_for_actions(reader: Peer, name: str, actions: list[str]) -> None:
    eventually(lambda: [action for action, *_ in seen(reader, name)] == actions)


def packets(host: Host) -> int:
    """Return how many packets the host has received."""
    (loopback,) = json.loads(host.ip("-json", "-statistics", "link", "show", "lo"))
    return int(loopback["stats64"]["rx"]["packets"])


def is_calm(host: Host) -> bool:
    before, end = packets(host), time.monotonic() + WINDOW
    while time.monotonic() < end:
        if packets(host) - before > CALM:
            return False
        time.sleep(PROBE_SECONDS)
    return True


def text(packet: Packet) -> str:
    return bytes.fromhex(packet["packet"]).decode("latin-1")
