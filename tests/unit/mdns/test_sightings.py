"""The table of what is heard: bounded, and fair to good neighbours."""

from __future__ import annotations

import pytest

from svcreg import Node, Service
from svcreg_mdns import records, sightings, skips
from svcreg_mdns.nodes import Nodes
from svcreg_mdns.records import Stamp
from svcreg_mdns.sightings import Packet, Sightings
from tests.support.mdns import text


class Table:
    """A table with a clock of its own, and the changes it reported."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.changes: list[tuple[Service | None, Service | None]] = []
        self.nodes = Nodes(lambda before, after: self.changes.append((before, after)))
        self.sightings = Sightings(self.nodes, clock=lambda: self.now)

    def ids(self, name: str = "greeter") -> list[str]:
        return [node.id for one in self.nodes.services(name) for node in one.nodes]

    def address(self) -> str:
        (service,) = self.nodes.services("greeter")
        return service.nodes[0].address


@pytest.fixture
def table() -> Table:
    return Table()


def announced(
    node_id: str = "g-1", *, time: int = 1, owner: int = 1, ttl: int = 10, port: int = 80
) -> Packet:
    """Return what our own announcement of a node sounds like."""
    node = Node(node_id, f"10.0.0.5:{port}")
    service = Service("greeter", "1", {"at": str(time)})
    written = records.encode(service, node, Stamp(time, owner))
    name = written.instance.lower()
    return Packet(
        {name: ttl},
        {name: (written.host, port, ttl)},
        {name: [(written.text, ttl)]},
        {written.host: [("10.0.0.5", ttl, True)]},
    )


def by_hand(label: str, node_id: str, ttl: int = 120) -> Packet:
    name, host = f"{label}.{records.SERVICE_TYPE}", f"{label}.local."
    return Packet(
        {name: ttl},
        {name: (host, 80, ttl)},
        {name: [(text(b"s=greeter", b"id=" + node_id.encode()), ttl)]},
        {host: [("10.0.0.6", ttl, True)]},
    )


def test_a_node_comes_changes_and_goes(table: Table) -> None:
    table.sightings.hear(announced(time=1))
    table.sightings.hear(announced(time=1))
    table.sightings.hear(announced(time=2))
    table.sightings.hear(announced(time=2, ttl=0))
    kinds = [(before is not None, after is not None) for before, after in table.changes]
    assert kinds == [(False, True), (True, True), (True, False)]
    assert table.nodes.names() == ()


def test_a_late_answer_neither_revives_nor_reverts(table: Table) -> None:
    table.sightings.hear(announced(time=5, port=80))
    table.sightings.hear(announced(time=6, port=81))
    table.sightings.hear(announced(time=5, port=80))
    assert table.address() == "10.0.0.5:81"
    table.sightings.hear(announced(time=6, port=81, ttl=0))
    table.now += 1.3
    table.sightings.hear(announced(time=5, port=80))
    table.sightings.hear(announced(time=6, port=81))
    assert table.ids() == []
    table.sightings.hear(announced(time=7, port=82))
    assert table.address() == "10.0.0.5:82"


def test_a_predecessors_goodbye_leaves_its_successor(table: Table) -> None:
    table.sightings.hear(announced(time=5, owner=1))
    table.sightings.hear(announced(time=6, owner=2))
    table.sightings.hear(announced(time=5, owner=1, ttl=0))
    assert table.ids() == ["g-1"]
    assert [sighting.lapses_at for sighting in table.sightings.lapsed()] == [table.now]  # asked for


def test_a_node_lapses_with_its_ttl(table: Table) -> None:
    table.sightings.hear(announced(ttl=10))
    assert table.sightings.seconds_to_next_lapse() == 10
    table.now += 9.9
    assert table.sightings.lapsed() == []
    table.sightings.hear(announced(ttl=10))
    table.now += 9.9
    assert table.sightings.lapsed() == []
    table.now += 0.1
    (lapsed,) = table.sightings.lapsed()
    table.sightings.remove(lapsed.name)
    assert table.ids() == []


def test_records_may_arrive_in_any_order_and_number_of_packets(table: Table) -> None:
    whole = announced()
    table.sightings.hear(Packet(texts=whole.texts))
    assert len(list(table.sightings.unresolved())) == 1
    table.sightings.hear(Packet(services=whole.services))
    assert table.ids() == []
    table.sightings.hear(Packet(addresses=whole.addresses))
    assert table.ids() == ["g-1"]
    assert list(table.sightings.unresolved()) == []


def test_a_known_text_is_not_decoded_again(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    original = records.decode

    def decode(data: bytes) -> records.Claim:
        decoded.append(data)
        return original(data)

    whole = announced()
    monkeypatch.setattr(records, "decode", decode)
    bad = by_hand("bad", "g-2")
    bad.texts = {name: [(b"\x03s=a", 120)] for name in bad.texts}
    for _ in range(5):
        table.sightings.hear(whole)
        table.sightings.hear(bad)
    assert len(decoded) == 2
    assert table.sightings.skips.count == 1


def test_bad_records_are_counted_and_only_some_are_named(
    table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(100):
        packet = by_hand(f"bad-{number}", "x")
        packet.texts = {name: [(b"\xff", 120)] for name in packet.texts}
        table.sightings.hear(packet)
    assert table.sightings.skips.count == 100
    assert len(caplog.records) == skips.LOG_LINES_PER_MINUTE
    assert "bad-0" in caplog.text
    table.now += 60
    packet = by_hand("bad-later", "x")
    packet.texts = {name: [(b"\xff", 120)] for name in packet.texts}
    table.sightings.hear(packet)
    assert "(101 skipped so far)" in caplog.text


def test_a_flood_makes_room_among_those_heard_once(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sightings, "NODE_LIMIT", 50)
    table.sightings.hear(announced("good"))
    table.now += 2
    table.sightings.hear(announced("good"))
    for number in range(500):
        table.sightings.hear(by_hand(f"evil-{number}", f"evil-{number}"))
    assert len(table.sightings) == 50
    table.sightings.hear(announced("newcomer"))
    assert {"good", "newcomer"} <= set(table.ids())
    assert len(table.sightings) == 50


def test_all_records_together_have_a_memory_limit(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = records.decode(next(iter(announced().texts.values()))[0][0]).cost
    monkeypatch.setattr(sightings, "MEMORY_LIMIT", 3 * one)
    for number in range(10):
        table.sightings.hear(announced(f"g-{number}"))
    assert len(table.ids()) == 3
    table.sightings.hear(announced("g-0", time=2))  # an update replaces what it updates
    table.sightings.hear(announced("g-0", time=2, ttl=0))
    table.sightings.hear(announced("g-9", time=2))
    assert table.ids() == ["g-1", "g-2", "g-9"]


def test_names_alone_are_remembered_but_bounded(table: Table) -> None:
    for number in range(10_000):
        table.sightings.hear(Packet(pointers={f"x-{number}.{records.SERVICE_TYPE}": 4500}))
    assert len(table.sightings) == sightings.NODE_LIMIT


def test_addresses_of_a_host_are_bounded_and_the_last_one_stays(table: Table) -> None:
    packet = by_hand("multi", "g-1")
    ((host, _),) = packet.addresses.items()
    packet.addresses[host] = [(f"10.0.1.{number}", 120, False) for number in range(100)]
    table.sightings.hear(packet)
    assert len(table.sightings.addresses(host)) == sightings.ADDRESS_LIMIT
    table.sightings.hear(Packet(addresses={host: [(f"10.0.1.{n}", 0, True) for n in range(100)]}))
    assert len(table.sightings.addresses(host)) == 1
    assert table.ids() == ["g-1"]


def test_a_new_address_replaces_an_older_one(table: Table) -> None:
    table.sightings.hear(by_hand("moved", "g-1"))
    table.now += 2
    table.sightings.hear(Packet(addresses={"moved.local.": [("10.0.0.7", 120, True)]}))
    assert table.address() == "10.0.0.7:80"


def test_our_own_kind_of_name_wins_over_another(table: Table) -> None:
    table.sightings.hear(by_hand("impostor", "g-1"))
    assert table.address() == "10.0.0.6:80"
    table.sightings.hear(announced("g-1"))
    assert table.address() == "10.0.0.5:80"
    table.sightings.hear(by_hand("another", "g-1"))
    assert table.address() == "10.0.0.5:80"
    table.sightings.hear(announced("g-1", ttl=0))
    assert table.address() == "10.0.0.6:80"


def test_an_instance_that_becomes_another_node_leaves_the_old_one(table: Table) -> None:
    table.sightings.hear(by_hand("shelf", "g-1"))
    table.sightings.hear(by_hand("shelf", "g-2"))
    assert table.ids() == ["g-2"]


def test_clearing_reports_every_node_gone(table: Table) -> None:
    table.sightings.hear(announced("a"))
    table.sightings.hear(announced("b"))
    table.sightings.clear()
    assert [after for _, after in table.changes[2:]] == [None, None]
    assert len(table.sightings) == 0
