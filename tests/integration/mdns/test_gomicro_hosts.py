"""go-micro's dialect between hosts that are network namespaces, and under fire."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.integration.mdns.conftest import StartProgram
from tests.support.mdns import node_ids, service, unique
from tests.support.namespaces import Host, connect

pytestmark = pytest.mark.root

PACKETS = 100_000


def test_two_hosts_find_each_other_over_ipv6_alone(
    start: StartProgram, two_hosts: list[Host]
) -> None:
    one, other = two_hosts
    connect(one, other, ipv4=False)
    name = unique("six")
    owner = start("link0", one.prefix, "go-micro")
    reader = start("link0", other.prefix, "go-micro")
    reader.watch(name)
    owner.call("register", service=service(name, "global", "[2001:db8::1]:80"), ttl=10)
    owner.call("register", service=service(name, "near", "[fe80::1234%link0]:80"), ttl=10)
    index = other.ip("-o", "link", "show", "link0").partition(":")[0]
    for node_id, address in (
        ("global", "[2001:db8::1]:80"),
        ("near", f"[fe80::1234%{index}]:80"),
    ):
        seen = reader.expect_change("upsert", node_id)["service"]
        assert seen["nodes"][0]["address"] == address
    late = start("link0", other.prefix, "go-micro")
    assert node_ids(late.call("get", name=name)) == ["global", "near"]


def test_a_new_interface_is_used_and_a_lost_one_is_noticed(
    start: StartProgram, two_hosts: list[Host]
) -> None:
    one, other = two_hosts
    name = unique("roaming")
    owner = start("", one.prefix, "go-micro")
    owner.call("register", service=service(name, address="10.77.0.1:80"), ttl=4)
    reader = start("", other.prefix, "go-micro")
    assert reader.watch(name)["services"] == []
    connect(one, other)
    reader.expect_change("upsert", timeout=15)
    one.ip("link", "delete", "link0")
    removed = time.monotonic()
    gone = reader.expect_change("delete", timeout=15)["at"] - removed
    assert gone < 6


def test_packets_of_another_network_are_not_heard(
    start: StartProgram, two_hosts: list[Host]
) -> None:
    one, other = two_hosts
    connect(one, other)
    reader = start("", other.prefix, "go-micro")
    reader.watch(None)
    # From beyond: an address that no interface of the reader has a network for.
    one.ip("address", "add", "10.99.0.1/32", "dev", "lo")
    other.ip("route", "add", "10.99.0.1", "via", "10.77.0.1")
    near, far = unique("near"), unique("far")
    for source, name in (("10.99.0.1", far), ("10.77.0.1", near)):
        script = _SEND.format(source=source, target="10.77.0.2", name=name)
        subprocess.run([*one.prefix, sys.executable, "-c", script], check=True, timeout=20)
    reader.expect(lambda e: e["event"] == "upsert" and e["service"]["name"] == near)
    assert not [e for e in reader.seen if e["event"] == "upsert" and e["service"]["name"] == far]


_SEND = """
import socket
from tests.support.mdns_gomicro import gomicro_announcement, gomicro_text
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind(("{source}", 0))
    sock.sendto(gomicro_announcement("{name}", "n-1", gomicro_text("{name}")), ("{target}", 5353))
"""


@pytest.mark.slow
def test_a_hundred_thousand_bad_packets_cost_bounded_memory_and_no_good_neighbour(
    start: StartProgram, one_host: Host
) -> None:
    name = unique("good")
    program = start("lo", one_host.prefix, "go-micro")
    program.watch(None)
    program.call("register", service=service(name), ttl=60)
    program.expect_change("upsert")
    noise = subprocess.Popen(
        [*one_host.prefix, sys.executable, "-c", _NOISE, name, str(PACKETS)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert noise.stdout is not None
        memory = [program.call("memory") for _ in iter(noise.stdout.readline, "")]
        assert noise.wait(10) == 0
    finally:
        noise.kill()
        noise.communicate()
    program.call("register", service=service(name, "late"), ttl=60)
    program.expect_change("upsert", "late")
    assert node_ids(program.call("get", name=name)) == ["late", "n-1"]
    print(f"memory after each tenth, in MB: {[round(bytes_ / 1e6) for bytes_ in memory]}")
    assert len(memory) == 10
    assert max(memory[2:]) - memory[1] < 20e6
    assert "Traceback" not in program.process.log
    assert program.process.log.count("skipping record") < 100


_NOISE = """
import random, sys
from tests.support.mdns import sender
from tests.support.mdns_gomicro import captured, GROUP, asker, query
name, count = sys.argv[1], int(sys.argv[2])
chance, known = random.Random(11), captured()
marker = b"\\x05micro\\x00"

def noise():
    kind = chance.randrange(10)
    if kind == 0:
        return chance.randbytes(chance.randint(0, 600)) + marker
    packet = bytearray(chance.choice(known))
    for _ in range(chance.randint(1, 4)):
        packet[chance.randrange(len(packet))] = chance.randrange(256)
    if kind == 1:
        del packet[chance.randrange(len(packet)):]
    return bytes(packet)

with asker() as sock:
    sock.settimeout(20)
    for number in range(1, count + 1):
        sock.sendto(noise(), GROUP)
        if number % 100 == 0:  # wait until all of it was read
            sock.sendto(query(name + ".micro", number=number & 0xFFFF), GROUP)
            while sock.recv(65535)[:2] != (number & 0xFFFF).to_bytes(2, "big"):
                pass
        if number % (count // 10) == 0:
            print(number, flush=True)
"""
