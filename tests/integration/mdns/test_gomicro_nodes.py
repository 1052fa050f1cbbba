"""Nodes that announce themselves as go-micro's do, as our readers see them."""

from __future__ import annotations

import time

import pytest

from svcreg import Node, Service
from svcreg_mdns import MdnsBackend
from tests.support.mdns import sender, unique
from tests.support.mdns_backend import Changes, GoNode, eventually, run
from tests.support.mdns_gomicro import gomicro_announcement, gomicro_text

DIALECTS = pytest.mark.parametrize("dialect", ["both", "go-micro"])


def as_read(go: GoNode, address: str = "127.0.0.1:8080") -> Service:
    return Service(go.service, "1.0", nodes=[Node(go.node_id, address, {"by": "go"})])


@DIALECTS
def test_a_node_that_is_there_is_read_and_listed(dialect: str) -> None:
    async def test(reader: MdnsBackend) -> None:
        with GoNode(unique("there")) as go:
            assert await reader.svcreg_get(go.service) == (as_read(go),)
            assert go.service in await reader.svcreg_list()

    run(test, dialect)


def test_a_node_found_by_the_list_alone_is_watched() -> None:
    async def test(reader: MdnsBackend) -> None:
        with GoNode(unique("listed")) as go:
            snapshot = await anext(reader.svcreg_watch(None))
            assert as_read(go) in snapshot.services  # type: ignore[union-attr] # it is a Snapshot

    run(test, "both")


@DIALECTS
def test_repeated_announcements_and_goodbyes_are_one_event_each(dialect: str) -> None:
    async def test(reader: MdnsBackend) -> None:
        go = GoNode(unique("repeated"))
        async with Changes(reader, go.service) as changes:
            for _ in range(6):
                go.announce()
            await changes.until("upsert go-1")
            go.announce(port=9090)
            await changes.until("upsert go-1", "upsert go-1")
            for _ in range(2):
                go.announce(port=9090, ttl=0)
            await changes.until("upsert go-1", "upsert go-1", "delete go-1")
            GoNode(go.service, "marker").announce()
            await changes.until("upsert go-1", "upsert go-1", "delete go-1", "upsert marker")

    run(test, dialect)


def test_a_node_that_answers_stays_beyond_its_ttl_and_goes_when_it_dies() -> None:
    async def test(reader: MdnsBackend) -> None:
        with GoNode(unique("mortal"), ttl=1) as go:
            async with Changes(reader, go.service) as changes:
                asked = go.questions

                async def asked_again() -> bool:
                    return go.questions >= asked + 3

                await eventually(asked_again)
                assert changes.said == []
                go.silence()
                died = time.monotonic()
                await changes.until("delete go-1")
                print(f"TTL of 1 s: gone {time.monotonic() - died:.2f} s after its death")
                assert time.monotonic() - died < 2
                assert await reader.svcreg_get(go.service) == ()

    run(test, "both")


def test_a_node_of_both_a_go_and_a_python_program_is_one() -> None:
    async def test(owner: MdnsBackend, reader: MdnsBackend) -> None:
        with GoNode(unique("shared")) as go:
            async with Changes(reader, go.service) as changes:
                python = Service(
                    go.service, "1.0", {"team": "blue"}, nodes=[Node("go-1", "127.0.0.1:1")]
                )
                await owner.svcreg_register(python, 30)
                await changes.until("upsert go-1")
                go.announce()
                assert await reader.svcreg_get(go.service) == (python,)
                go.announce(ttl=0)
                go.silence()
                await owner.svcreg_deregister(python)
                await changes.until("upsert go-1", "delete go-1")

    run(test, "both", "both")


def test_withdrawing_a_go_node_says_goodbye_for_it() -> None:
    async def test(admin: MdnsBackend, reader: MdnsBackend) -> None:
        with GoNode(unique("evicted")) as go:
            async with Changes(reader, go.service) as changes:
                assert await admin.svcreg_get(go.service) == (as_read(go),)
                go.silence()
                await admin.svcreg_deregister(as_read(go))
                await changes.until("delete go-1")
                assert await admin.svcreg_get(go.service) == ()

    run(test, "both", "both")


@pytest.mark.parametrize(("writer", "reader"), [("go-micro", "both"), ("both", "go-micro")])
def test_one_dialect_finds_the_other_program_that_speaks_it(writer: str, reader: str) -> None:
    async def test(owner: MdnsBackend, there: MdnsBackend) -> None:
        name = unique("half")
        early, late = (
            Service(name, "1", nodes=[Node(node_id, "127.0.0.1:80", {"a": "b"})])
            for node_id in ("early", "late")
        )
        await owner.svcreg_register(early, 30)
        assert await there.svcreg_get(name) == (early,)
        async with Changes(there, name) as changes:
            await owner.svcreg_register(late, 30)
            await changes.until("upsert late")
            await owner.svcreg_register(Service(name, "2", nodes=late.nodes), 30)
            await changes.until("upsert late", "upsert late")
            await owner.svcreg_deregister(late)
            await changes.until("upsert late", "upsert late", "delete late")

    run(test, writer, reader)


def test_bad_records_hide_no_neighbour() -> None:
    async def test(reader: MdnsBackend) -> None:
        with GoNode(unique("neighbours")) as go:
            async with Changes(reader, go.service) as changes:
                with sender() as send:
                    for number, txt in enumerate([b"", b"\xff", b"\x04zzzz", gomicro_text("x")]):
                        send(gomicro_announcement(go.service, f"bad-{number}", txt))
                    send(gomicro_announcement(go.service, "good", gomicro_text(go.service)))
                await changes.until("upsert good")

    run(test, "both")
