"""Hosts that are network namespaces: two on one link, one with only a loopback, changing ones."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.integration.mdns.conftest import StartProgram
from tests.support.mdns import node_ids, service, unique
from tests.support.namespaces import Host, connect
from tests.support.servers import eventually

pytestmark = pytest.mark.root


def test_two_hosts_find_each_other_on_all_interfaces(
    start: StartProgram, two_hosts: list[Host]
) -> None:
    one, other = two_hosts
    connect(one, other)
    name = unique("lan")
    owner = start("", one.prefix)
    reader = start("", other.prefix)
    reader.watch(name)
    began = time.monotonic()
    owner.call("register", service=service(name, address="10.77.0.1:80"), ttl=4)
    seen = reader.expect_change("upsert")["at"] - began
    assert node_ids(start("", other.prefix).call("get", name=name)) == ["n-1"]
    killed = time.monotonic()
    owner.process.kill()
    gone = reader.expect_change("delete")["at"] - killed
    print(
        f"two hosts: create after {1000 * seen:.1f} ms, "
        f"SIGKILL with a TTL of 4 s: gone after {gone:.2f} s"
    )
    assert seen < 0.1
    assert gone < 6


def test_two_hosts_find_each_other_over_ipv6_alone(
    start: StartProgram, two_hosts: list[Host]
) -> None:
    one, other = two_hosts
    connect(one, other, ipv4=False)
    name = unique("six")
    owner = start("link0", one.prefix)
    reader = start("link0", other.prefix)
    reader.watch(name)
    owner.call("register", service=service(name, address="[2001:db8::1]:80"), ttl=10)
    seen = reader.expect_change("upsert")
    assert seen["service"]["nodes"][0]["address"] == "[2001:db8::1]:80"
    assert node_ids(start("link0", other.prefix).call("get", name=name)) == ["n-1"]


def test_a_link_local_address_is_told_with_the_readers_interface(
    start: StartProgram, two_hosts: list[Host]
) -> None:
    one, other = two_hosts
    connect(one, other, ipv4=False)
    name = unique("near")
    owner = start("link0", one.prefix)
    reader = start("link0", other.prefix)
    reader.watch(name)
    owner.call("register", service=service(name, address="[fe80::1234%link0]:80"), ttl=10)
    index = other.ip("-o", "link", "show", "link0").partition(":")[0]
    address = reader.expect_change("upsert")["service"]["nodes"][0]["address"]
    assert address == f"[fe80::1234%{index}]:80"


def test_a_host_with_only_a_loopback_suffices(start: StartProgram, one_host: Host) -> None:
    name = unique("alone")
    owner = start("", one_host.prefix)
    reader = start("", one_host.prefix)
    reader.watch(name)
    owner.call("register", service=service(name), ttl=10)
    reader.expect_change("upsert")
    assert node_ids(start("", one_host.prefix).call("get", name=name)) == ["n-1"]


def test_without_any_interface_the_error_says_so_and_it_recovers(
    start: StartProgram, one_host: Host
) -> None:
    name = unique("dark")
    one_host.ip("link", "set", "lo", "down")
    program = start("", one_host.prefix)
    error = program.ask("get", name=name)["error"]
    assert error.startswith("RegistryUnavailableError: mdns: no usable network interface")
    assert "MICRO_MDNS_INTERFACES" in error
    one_host.ip("link", "set", "lo", "up")
    program.call("register", service=service(name), ttl=10)
    assert node_ids(program.call("get", name=name)) == ["n-1"]


def test_an_interface_that_goes_ends_the_watch_and_what_was_registered_is_missed(
    start: StartProgram, one_host: Host
) -> None:
    name = unique("unplugged")
    program = start("lo", one_host.prefix)
    program.call("register", service=service(name), ttl=3)
    program.watch(name)
    one_host.ip("link", "set", "lo", "down")
    ended = program.expect(lambda event: event["event"] == "ended", timeout=10)
    assert "RegistryUnavailableError" in ended["error"]
    one_host.ip("link", "set", "lo", "up")
    back = time.monotonic()
    program.call("get", name=name)
    program.expect(lambda e: e["event"] == "renewed" and node_ids(e["lost"]) == ["n-1"], since=back)


def test_interfaces_that_come_and_go_are_followed(
    start: StartProgram, two_hosts: list[Host]
) -> None:
    one, other = two_hosts
    name = unique("roaming")
    owner = start("", one.prefix)
    owner.call("register", service=service(name, address="10.77.0.1:80"), ttl=6)
    reader = start("", other.prefix)
    assert reader.watch(name)["services"] == []
    connect(one, other)
    added = time.monotonic()
    seen = reader.expect_change("upsert", timeout=15)["at"] - added
    print(f"a new interface is used after {seen:.1f} s")
    one.ip("link", "delete", "link0")
    removed = time.monotonic()
    gone = reader.expect_change("delete", timeout=15)["at"] - removed
    assert gone < 8
    # A second cable, with other addresses.
    connect(one, other, 1)
    reader.expect_change("upsert", timeout=15, since=removed + gone)


def test_only_chosen_interfaces_are_heard(start: StartProgram, two_hosts: list[Host]) -> None:
    one, other = two_hosts
    connect(one, other)
    # Somebody on the reader's host listens on the link: Linux would give everybody those packets.
    start("", other.prefix).watch(None)
    name = unique("overheard")
    private = start("lo", other.prefix)
    private.watch(name)
    public = start("", other.prefix)
    public.watch(name)
    start("link0", one.prefix).call(
        "register", service=service(name, address="10.77.0.1:80"), ttl=10
    )
    public.expect_change("upsert")
    assert private.call("get", name=name) == []
    assert [event["event"] for event in private.seen] == ["ready", "snapshot"]


def test_an_interface_is_chosen_by_address_too(start: StartProgram, two_hosts: list[Host]) -> None:
    one, other = two_hosts
    connect(one, other)
    name = unique("by-address")
    start("10.77.0.1", one.prefix).call(
        "register", service=service(name, address="10.77.0.1:80"), ttl=10
    )
    assert node_ids(start("10.77.0.2", other.prefix).call("get", name=name)) == ["n-1"]
    assert start("127.0.0.1", other.prefix).call("get", name=name) == []


def test_a_flood_costs_bounded_memory_and_no_good_neighbour(
    start: StartProgram, one_host: Host
) -> None:
    name = unique("good")
    owner = start("", one_host.prefix)
    reader = start("", one_host.prefix)
    reader.watch(None)
    owner.call("register", service=service(name, "first"), ttl=6)
    reader.expect_change("upsert", "first")
    owner.expect(lambda event: event["event"] == "renewed")  # heard twice: it is there to stay
    before = reader.call("memory")
    began = time.monotonic()
    flood = subprocess.run(
        [*one_host.prefix, sys.executable, "-c", _FLOOD],
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert flood.returncode == 0, flood.stderr
    owner.call("register", service=service(name, "second"), ttl=6)
    reader.expect_change("upsert", "second", since=began)
    eventually(lambda: time.monotonic() > began + 8)
    grown = reader.call("memory") - before
    assert node_ids(reader.call("get", name=name)) == ["first", "second"]
    assert len(reader.call("list")) <= 4096
    print(f"after {flood.stdout.strip()} hostile nodes: {grown / 1e6:.0f} MB more")
    assert grown < 200e6
    assert "skipping record" in reader.process.log
    assert "Traceback" not in reader.process.log


_FLOOD = """
import os, time, zlib
from tests.support.mdns import announcement, sender, text
entries = b",".join(b'"%d":"%d"' % (i, i) for i in range(500))
payload = zlib.compress(b'{"metadata":{' + entries + b"}}")
chunks = [b"d%d=" % n + payload[i:i + 240] for n, i in enumerate(range(0, len(payload), 240))]
with sender() as send:
    for i in range(8000):
        label = f"evil-{i}"
        send(announcement(label, text(b"s=evil-%d" % i, b"id=n", *chunks), ttl=4500))
        if i % 20 == 0:
            time.sleep(0.01)
print(8000)
"""
