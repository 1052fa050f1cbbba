"""What a go-micro program hears of us: announcements, answers, goodbyes, and no question."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time

import pytest

from svcreg import Endpoint, InvalidServiceError, Node, Service
from svcreg_mdns import MdnsBackend
from svcreg_mdns.gomicro import GoMicro, packets, records
from svcreg_mdns.gomicro.packets import PTR, SRV, TXT, A, Message
from svcreg_mdns.gomicro.records import Names
from svcreg_mdns.interfaces import find_interfaces
from svcreg_mdns.nodes import Nodes
from tests.support.mdns import unique
from tests.support.mdns_backend import GoNode, eventually, one, recording, run
from tests.support.mdns_gomicro import (
    GROUP,
    ask,
    asker,
    count_records,
    gomicro_announcement,
    message,
    node_records,
    query,
    question,
)

TTL = 30.0
ONE_NODE = {PTR: 1, SRV: 1, A: 1, TXT: 1}


def kinds(heard: list[tuple[float, int, bytes]]) -> list[str]:
    """Return what the announcements among packets do: create or delete, with the version."""
    said = []
    for _, port, packet in heard:
        decoded = packets.decode(packet)
        for seen in records.nodes_in(decoded):
            assert port == 5353
            assert decoded.questions == ()
            claim = records.decode(seen, Names("micro"))
            said.append(f"{'create' if seen.ttl else 'delete'} {claim.service.version}")
    return said


def test_two_hundred_nodes_are_found_while_go_waits() -> None:
    async def test(owner: MdnsBackend) -> None:
        name = unique("crowd")
        nodes = [Node(f"n-{n:03}", f"127.0.0.1:{n + 1}", {"zone": "z1"}) for n in range(200)]
        await owner.svcreg_register(Service(name, "1.0", nodes=nodes), TTL)
        asked = query(f"{name}.micro", number=0x1234)
        with asker() as sock:
            answers = await asyncio.to_thread(ask, sock, asked)
        ids = []
        for answer in answers:
            assert answer[:2] == b"\x12\x34"
            assert answer[12 : len(asked)] == asked[12:], "the question comes back verbatim"
            assert count_records(answer) == ONE_NODE, "go keeps the last node of a packet only"
            decoded = packets.decode(answer)
            assert [record.kind for record in decoded.records] == [PTR, SRV, A, TXT]
            (seen,) = records.nodes_in(decoded)
            ids.append(records.decode(seen, Names("micro")).node.id)
        assert sorted(ids) == [node.id for node in nodes]

    run(test, "both")


def test_the_list_has_each_service_once() -> None:
    async def test(owner: MdnsBackend) -> None:
        name = unique("listed")
        await owner.svcreg_register(Service(name, "1", nodes=[Node("a", "127.0.0.1:1")]), TTL)
        await owner.svcreg_register(Service(name, "2", nodes=[Node("b", "127.0.0.1:1")]), TTL)
        with asker() as sock:
            answers = await asyncio.to_thread(ask, sock, query("_services.micro"))
        ours = [packets.decode(answer) for answer in answers if name.encode() in answer]
        (answer,) = ours
        pointer, service, address, text = answer.records
        assert pointer.target == service.name == text.name == f"{name}._services.micro."
        assert (service.port, address.data, text.data) == (9999, bytes(4), b"")

    run(test, "both")


@pytest.mark.parametrize("class_", [0x0001, 0x8001])
def test_a_node_is_answered_for_by_its_own_name_too(class_: int) -> None:
    async def test(owner: MdnsBackend) -> None:
        name = unique("direct")
        await owner.svcreg_register(one(name), TTL)
        asked = query(f"n-1.{name}.micro", packets.ANY, class_=class_)
        with asker() as sock:
            (answer,) = await asyncio.to_thread(ask, sock, asked)
            assert answer[12 : len(asked)] == asked[12:]
            assert count_records(answer) == {SRV: 1, A: 1, TXT: 1}
            assert await asyncio.to_thread(ask, sock, query(f"n-1.{name}.micro", PTR)) == []
            other_case = query(f"n-1.{name.upper()}.micro", packets.ANY)
            assert await asyncio.to_thread(ask, sock, other_case) == [], "as in Go"

    run(test, "both")


def test_announcements_come_after_0_1_and_3_seconds_and_one_goodbye() -> None:
    async def test(owner: MdnsBackend) -> None:
        name = unique("news")
        async with recording(f"{name}\x05micro") as heard:
            await owner.svcreg_register(one(name), TTL)

            async def announced() -> bool:
                return len(kinds(heard)) == 3

            await eventually(announced)
            await owner.svcreg_renew([one(name)], TTL)  # is no announcement: Go would see a create
            await owner.svcreg_deregister(one(name))

            async def withdrawn() -> bool:
                return len(kinds(heard)) == 4

            await eventually(withdrawn)
        assert kinds(heard) == ["create 1.0"] * 3 + ["delete 1.0"]
        announced_at = [at for at, _, packet in heard if packet[2] & 0x80]
        times = [at - announced_at[0] for at in announced_at]
        assert 0.9 < times[1] < 1.8
        assert 2.9 < times[2] < 4

    run(test, "both")


def test_a_new_version_leaves_no_moment_without_the_node() -> None:
    async def test(owner: MdnsBackend) -> None:
        name = unique("versions")
        service = one(name)
        async with recording(f"{name}\x05micro") as heard:
            await owner.svcreg_register(service, TTL)
            changed = Service(name, "2.0", nodes=service.nodes)
            await owner.svcreg_register(changed, TTL)

            async def all_heard() -> bool:
                return len(kinds(heard)) >= 4

            await eventually(all_heard)
        assert kinds(heard)[:4] == ["create 1.0", "create 2.0", "delete 1.0", "create 2.0"]

    run(test, "both")


def test_whoever_asks_from_port_5353_is_told_by_multicast_and_once_a_second() -> None:
    async def test(owner: MdnsBackend) -> None:
        name = unique("peer")
        await owner.svcreg_register(one(name), TTL)
        with asker() as polite, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rude:
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                rude.setsockopt(socket.SOL_SOCKET, option, 1)
            loopback = socket.inet_aton("127.0.0.1")
            rude.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
            rude.bind(("", 5353))
            async with recording(f"{name}\x05micro") as heard:

                async def was_answered() -> bool:
                    rude.sendto(query(f"{name}.micro"), GROUP)
                    rude.sendto(query(f"n-1.{name}.micro"), GROUP)  # as go-micro probes
                    return len(answers(heard)) == 2

                await eventually(was_answered)
                assert await asyncio.to_thread(ask, polite, query(f"{name}.micro"))
            (first, answer), (second, _) = answers(heard)
        assert second - first > 0.9
        assert answer.questions == ()
        assert [record.kind for record in answer.records] == [PTR, SRV, A, TXT]

    def answers(heard: list[tuple[float, int, bytes]]) -> list[tuple[float, Message]]:
        """Return what begins with a pointer, which announcements do not."""
        decoded = [(at, packets.decode(packet)) for at, _, packet in heard]
        return [(at, m) for at, m in decoded if m.records and m.records[0].kind == PTR]

    run(test, "both")


def test_answers_are_not_answered_and_nothing_is_asked_from_port_5353() -> None:
    """Either would set go-micro's servers sending to each other for ever."""

    async def test(owner: MdnsBackend, reader: MdnsBackend) -> None:
        name = unique("quiet")
        async with recording("micro") as heard:
            await owner.svcreg_register(one(name), TTL)
            with asker() as sock, GoNode(name, ttl=2) as go:
                go.announce()
                assert len((await reader.svcreg_get(name))[0].nodes) == 2
                await reader.svcreg_list()
                before = go.questions

                async def asked_again() -> bool:
                    return go.questions > before

                await eventually(asked_again)
                for flags in (0x8000, 0x8400, 0x8580):
                    answer = bytearray(query(f"{name}.micro"))
                    struct.pack_into("!H", answer, 2, flags)
                    assert await asyncio.to_thread(ask, sock, bytes(answer)) == []
                echoed = message(node_records(name, "x", b""), asked=question(f"{name}.micro"))
                assert await asyncio.to_thread(ask, sock, echoed) == []
            await owner.svcreg_deregister(one(name))
        asked = [(port, packet) for _, port, packet in heard if not packet[2] & 0x80]
        assert len(asked) > 3
        assert 5353 not in [port for port, packet in asked if name.encode() in packet]

    run(test, "both", "both")


def test_a_service_without_a_version_is_left_to_the_other_dialect_with_a_warning_if_go_asks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(owner: MdnsBackend, reader: MdnsBackend) -> None:
        name = unique("plain")
        service = Service(name, nodes=[Node("n-1", "127.0.0.1:80")])
        with caplog.at_level(logging.WARNING, "svcreg.mdns"), asker() as sock:
            await owner.svcreg_register(service, TTL)
            assert await reader.svcreg_get(name) == (service,)
            assert caplog.text == ""
            for number in (7, 8):
                asked = query(f"{name}.micro", number=number)
                assert await asyncio.to_thread(ask, sock, asked) == []
            assert caplog.text.count(f"asks for {name!r}, which has no version") == 1
            await owner.svcreg_register(Service(name, "1", nodes=service.nodes), TTL)
            assert len(await asyncio.to_thread(ask, sock, query(f"{name}.micro"))) == 1
            await owner.svcreg_register(service, TTL)  # and away with what Go knew
            assert await asyncio.to_thread(ask, sock, query(f"{name}.micro")) == []

    run(test, "both", "both")


def test_what_does_not_fit_is_left_to_the_other_dialect_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(owner: MdnsBackend, reader: MdnsBackend) -> None:
        name = unique("x" * 60)
        nodes = [Node(f"n-{number}", "127.0.0.1:80") for number in range(3)]
        with caplog.at_level(logging.WARNING, "svcreg.mdns"):
            await owner.svcreg_register(Service(name, "1", nodes=nodes), TTL)
        assert await reader.svcreg_get(name) == (Service(name, "1", nodes=nodes),)
        assert caplog.text.count("announced in DNS-SD only") == 1
        assert "name is too long" not in caplog.text, "what DNS cannot hold was asked for"
        assert "service name" in caplog.text
        assert "1 to 63" in caplog.text

    run(test, "both", "both")


def test_what_does_not_fit_is_refused_where_there_is_no_other_dialect(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(owner: MdnsBackend) -> None:
        name = unique("refused")
        nodes = [Node("good", "127.0.0.1:80"), Node("x" * 64, "127.0.0.1:80")]
        with pytest.raises(InvalidServiceError, match="node id"):
            await owner.svcreg_register(Service(name, "1", nodes=nodes), TTL)
        with pytest.raises(InvalidServiceError, match="version is empty"):
            await owner.svcreg_register(Service(name, nodes=nodes[:1]), TTL)
        assert await owner.svcreg_get(name) == ()
        # What Go's records have no room for is left out, with a word.
        given = Service(name, "1", {"team": "blue"}, [Endpoint("E")], nodes[:1])
        await owner.svcreg_register(given, TTL)
        assert await owner.svcreg_get(name) == (Service(name, "1", {}, [Endpoint("E")], nodes[:1]),)
        assert caplog.text.count("metadata of nodes only") == 1

    run(test, "go-micro")


def test_only_the_chosen_dialect_is_spoken() -> None:
    async def test(standard: MdnsBackend, go: MdnsBackend) -> None:
        name = unique("single")
        async with recording(name) as heard:
            await standard.svcreg_register(one(f"{name}-a"), TTL)
            await go.svcreg_register(one(f"{name}-b"), TTL)
            assert await standard.svcreg_get(f"{name}-b") == ()
            assert await go.svcreg_get(f"{name}-a") == ()
        said = [packet for _, port, packet in heard if port == 5353]
        assert {b"_micro" in packet for packet in said if f"{name}-a".encode() in packet} == {True}
        assert {b"_micro" in packet for packet in said if f"{name}-b".encode() in packet} == {False}

    run(test, "dns-sd", "go-micro")


def test_another_domain_is_another_world() -> None:
    async def test(owner: MdnsBackend) -> None:
        name = unique("private")
        await owner.svcreg_register(one(name), TTL)
        assert await owner.svcreg_get(name) == (one(name),)
        with asker() as sock:
            assert await asyncio.to_thread(ask, sock, query(f"{name}.micro")) == []
            assert len(await asyncio.to_thread(ask, sock, query(f"{name}.corp.dev"))) == 1

    run(test, "go-micro", domain="corp.dev")


def test_a_node_that_others_withdraw_defends_itself_or_lets_go() -> None:
    async def test(both: MdnsBackend, alone: MdnsBackend) -> None:
        for backend, stays in ((both, True), (alone, False)):
            name = unique("goodbye")
            await backend.svcreg_register(one(name), TTL)
            with asker() as sock:
                (answer,) = await asyncio.to_thread(ask, sock, query(f"{name}.micro"))
                (seen,) = records.nodes_in(packets.decode(answer))
                goodbye = gomicro_announcement(name, "n-1", seen.text, port=80, ttl=0)
                async with recording(f"{name}\x05micro") as heard:
                    sock.sendto(goodbye, GROUP)
                    after = await asyncio.to_thread(ask, sock, query(f"{name}.micro"))
                assert len(after) == stays
                defences = [p for _, port, p in heard if port == 5353 and packets.decode(p).records]
                assert len(defences) == stays
            lost = await backend.svcreg_renew([one(name)], TTL)
            assert len(lost) == (not stays)

    run(test, "both", "go-micro")


def test_who_loses_a_node_in_dns_sd_answers_for_it_no_more() -> None:
    async def test(old: MdnsBackend, new: MdnsBackend, admin: MdnsBackend) -> None:
        name = unique("lost")
        await old.svcreg_register(one(name, address="127.0.0.1:1"), TTL)
        await new.svcreg_register(one(name, address="127.0.0.1:2"), TTL)
        with asker() as sock:

            async def answers(*ports: int) -> bool:
                heard = await asyncio.to_thread(ask, sock, query(f"{name}.micro"))
                seen = [
                    node for answer in heard for node in records.nodes_in(packets.decode(answer))
                ]
                return [node.port for node in seen] == list(ports)

            await eventually(lambda: answers(2))
            await old.svcreg_deregister(one(name))
            assert await answers(2)
            await admin.svcreg_deregister(one(name))
            await eventually(answers)

    run(test, "both", "both", "both")


def test_what_is_registered_is_announced_on_an_interface_that_comes() -> None:
    async def test() -> None:
        name, interfaces = unique("plugged"), find_interfaces(["lo"])
        dialect = GoMicro(Nodes(lambda *_: None), "micro", is_alone=True)
        await dialect.open(interfaces)
        try:
            async with recording(f"{name}\x05micro") as heard:
                await dialect.use(())
                await dialect.register(one(name), TTL)
                assert kinds(heard) == []
                await dialect.use(interfaces)
                came = time.monotonic()

                async def announced() -> bool:
                    return kinds(heard) == ["create 1.0"]

                await eventually(announced)
                assert heard[-1][0] < came + 0.3, "that was the next of the three announcements"
        finally:
            await dialect.close()

    run(test)
