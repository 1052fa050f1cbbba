"""Answers of `/v1/health/service`, decoded once."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

import pytest

from svcreg import Node, Service
from svcreg.errors import ProtocolError
from svcreg_consul.reader import Reader, group
from svcreg_consul.records import encode_tags

NODES = 5000


def entry(number: int, status: str = "passing", consul_node: str = "n", **service: Any) -> Any:
    node = Node(f"x-{number}", "", {"number": str(number), "zone": "z1"})
    tags = encode_tags(Service("x", "1.2.0"), node)
    return {
        "Node": {"Node": consul_node, "Address": "10.1.1.1"},
        "Service": {"ID": node.id, "Service": "x", "Tags": tags, "Port": 80, **service},
        "Checks": [{"CheckID": "serfHealth", "Status": "passing"}, {"Status": status}],
    }


def read(reader: Reader, *entries: Any, name: str = "x") -> dict[str, Any]:
    return asyncio.run(reader.read(name, json.dumps(entries).encode()))


def test_change_of_one_node_among_thousands_is_one_decode() -> None:
    reader = Reader()
    entries = [entry(number) for number in range(NODES)]
    body = json.dumps(entries).encode()
    entries[7] = entry(7, Address="10.9.9.9")
    changed = json.dumps(entries).encode()

    async def main() -> tuple[float, float]:
        before = time.perf_counter()
        first = await reader.read("x", body)
        between = time.perf_counter()
        assert (len(first), reader.decoded) == (NODES, NODES)
        second = await reader.read("x", changed)
        after = time.perf_counter()
        assert reader.decoded == NODES + 1
        assert second["x-7"].node.host == "10.9.9.9"
        assert all(second[key] is one for key, one in first.items() if key != "x-7")
        return between - before, after - between

    cold, warm = asyncio.run(main())
    print(f"\n{NODES} nodes: decoded in {cold * 1000:.0f} ms, one changed in {warm * 1000:.0f} ms")
    assert warm < cold / 2


def test_many_entries_leave_others_their_turn() -> None:
    body = json.dumps([entry(number) for number in range(1000)]).encode()

    async def main() -> int:
        turns = 0

        async def tick() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        await Reader().read("x", body)
        ticking.cancel()
        return turns

    assert asyncio.run(main()) >= 9


def test_what_is_remembered_is_bounded() -> None:
    reader = Reader(cached=10)
    for start in range(0, 100, 5):
        read(reader, *(entry(number) for number in range(start, start + 5)))
    assert len(reader._young) + len(reader._old) <= 20
    before = reader.decoded
    read(reader, *(entry(number) for number in range(95, 100)))
    assert reader.decoded == before


def test_same_entry_under_another_name_is_another_question() -> None:
    reader = Reader()
    assert read(reader, entry(1))
    assert not read(reader, entry(1), name="X")  # Consul answers whatever the case
    assert read(reader, entry(1))


@pytest.mark.parametrize(
    ("status", "listed"),
    [("passing", True), ("warning", True), ("critical", False), ("odd", False)],
)
def test_worst_check_decides(status: str, *, listed: bool) -> None:
    assert bool(read(Reader(), entry(1, status))) is listed
    assert bool(read(Reader(passing_only=True), entry(1, status))) is (status == "passing")


def test_better_and_newer_of_two_with_one_id_counts() -> None:
    old = entry(1, consul_node="a", Address="10.0.0.1", ModifyIndex=5)
    new = entry(1, consul_node="b", Address="10.0.0.2", ModifyIndex=9)
    sick = entry(1, "warning", consul_node="c", Address="10.0.0.3", ModifyIndex=20)
    for entries in ([old, new, sick], [sick, new, old]):
        assert read(Reader(), *entries)["x-1"].node.host == "10.0.0.2"


def test_bad_entry_is_named_once_and_hides_nobody(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    bad: list[Any] = [{"Service": {"Port": "eighty"}}, None, 5, entry(2, Tags=5)]
    for _ in range(3):
        assert set(read(reader, *bad, entry(1))) == {"x-1"}
    lines = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert reader.skipped == 4


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"[1", b"\xff"])
def test_nonsense_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="'x'"):
        asyncio.run(Reader().read("x", body))


def test_nodes_are_grouped_by_version_and_opinion() -> None:
    entries = [
        entry(n, Tags=encode_tags(Service("x", v), Node("", "")))
        for n, v in ((2, "1"), (1, "1"), (3, "2"))
    ]
    services = group(read(Reader(), *entries).values())
    assert [(s.version, [n.id for n in s.nodes]) for s in services] == [
        ("1", ["x-1", "x-2"]),
        ("2", ["x-3"]),
    ]
