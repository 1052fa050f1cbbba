"""The table of go-micro's nodes, with a clock of its own."""

from __future__ import annotations

import pytest

from svcreg import Service
from svcreg_mdns.gomicro import records
from svcreg_mdns.gomicro import table as tables
from svcreg_mdns.gomicro.records import Names, Seen
from svcreg_mdns.gomicro.table import Table
from svcreg_mdns.nodes import Nodes, Rank
from svcreg_mdns.skips import Skips
from tests.support.mdns_gomicro import gomicro_text

NAMES = Names("micro")


class Heard:
    """A table, its clock, and the changes it reported."""

    def __init__(self, *, is_alone: bool = False) -> None:
        self.now = 1000.0
        self.changes: list[tuple[Service | None, Service | None]] = []
        self.nodes = Nodes(lambda before, after: self.changes.append((before, after)))
        self.skips = Skips(self.clock)
        self.table = Table(self.nodes, NAMES, is_alone=is_alone, skips=self.skips, clock=self.clock)

    def clock(self) -> float:
        return self.now

    def ids(self, service: str = "greeter") -> list[str]:
        return [node.id for one in self.nodes.services(service) for node in one.nodes]

    def kinds(self) -> list[str]:
        return [
            "create" if before is None else "delete" if after is None else "update"
            for before, after in self.changes
        ]

    def live_through(self, seconds: float) -> list[float]:
        """Let time pass in small steps; return when somebody was asked for."""
        asked = []
        began = self.now
        while self.now < began + seconds:
            if self.table.due():
                asked.append(round(self.now - began, 2))
            self.table.drop_lapsed()
            assert self.table.seconds_to_next() > 0, "there is more to do"
            self.now += 0.01
        return asked


def node(
    node_id: str = "g-1",
    *,
    service: str = "greeter",
    version: str = "1",
    port: int = 80,
    ttl: int = 120,
    host: str = "vm.",
) -> Seen:
    instance = NAMES.instance(service, node_id)
    return Seen(instance, host, "10.0.0.5", port, gomicro_text(service, version), ttl)


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_repeated_announcements_and_goodbyes_are_one_change_each(heard: Heard) -> None:
    for ttl in (120, 120, 120, 0, 0):
        heard.table.hear(node(ttl=ttl))
    assert heard.kinds() == ["create", "delete"]


def test_another_record_under_the_same_id_is_an_update(heard: Heard) -> None:
    heard.table.hear(node(version="1"))
    heard.table.hear(node(version="2"))
    heard.table.hear(node(version="2", port=81))
    assert heard.kinds() == ["create", "update", "update"]
    assert heard.nodes.services("greeter")[0].nodes[0].port == 81


def test_the_goodbye_of_an_older_record_is_asked_about(heard: Heard) -> None:
    heard.table.hear(node(version="1"))
    heard.table.hear(node(version="2"))
    heard.table.hear(node(version="1", ttl=0))
    assert heard.table.due() == {"greeter"}
    heard.table.hear(node(version="2"), is_answer=True)
    assert heard.live_through(5) == []
    assert heard.kinds() == ["create", "update"]


def test_the_goodbye_of_an_older_record_ends_what_keeps_silent(heard: Heard) -> None:
    heard.table.hear(node(version="2"))
    heard.table.hear(node(version="1", ttl=0))
    heard.live_through(0.5)
    assert heard.kinds() == ["create", "delete"]


def test_a_node_is_asked_for_before_its_ttl_is_over_and_goes_when_it_is_silent(
    heard: Heard,
) -> None:
    heard.table.hear(node(ttl=100))
    asked = heard.live_through(101)
    assert len(asked) == 4
    assert 80 <= asked[0] < 83
    assert heard.kinds() == ["create", "delete"]
    assert heard.live_through(100) == []


def test_a_node_that_answers_stays(heard: Heard) -> None:
    heard.table.hear(node(ttl=10))
    for _ in range(5):
        assert heard.live_through(8.5)
        heard.table.hear(node(ttl=10), is_answer=True)
    assert heard.kinds() == ["create"]


def test_a_reader_that_was_asleep_asks_before_it_drops(heard: Heard) -> None:
    heard.table.hear(node(ttl=10))
    heard.now += 60
    heard.table.drop_lapsed()
    assert heard.ids() == ["g-1"]
    assert len(heard.live_through(0.1)) == 1
    heard.table.hear(node(ttl=10), is_answer=True)
    heard.live_through(1)
    assert heard.kinds() == ["create"]
    heard.now += 60
    assert len(heard.live_through(1)) == 2
    assert heard.kinds() == ["create", "delete"]


def test_an_answer_that_comes_too_late_brings_the_node_back(heard: Heard) -> None:
    heard.table.hear(node(ttl=2))
    heard.live_through(2.3)
    heard.table.hear(node(ttl=2), is_answer=True)
    assert heard.kinds() == ["create", "delete", "create"]


def test_a_long_ttl_is_limited(heard: Heard) -> None:
    heard.table.hear(node(ttl=1 << 31))
    assert heard.table.seconds_to_next() < tables.TTL_LIMIT


def test_an_answer_under_way_does_not_bring_back_what_was_withdrawn(heard: Heard) -> None:
    heard.table.hear(node())
    heard.table.hear(node(ttl=0))
    heard.table.hear(node(), is_answer=True)
    assert heard.ids() == []
    heard.table.hear(node())  # an announcement is news
    assert heard.ids() == ["g-1"]
    heard.table.forget("greeter", "g-1")
    heard.now += 2
    heard.table.hear(node(), is_answer=True)
    assert heard.ids() == ["g-1"]


def test_a_node_announced_in_both_dialects_is_left_to_the_other() -> None:
    instance = NAMES.instance("greeter", "g-1")
    twin = node(host=NAMES.twin_host(instance))
    both, alone = Heard(), Heard(is_alone=True)
    for heard in (both, alone):
        heard.table.hear(twin)
    assert (both.ids(), alone.ids()) == ([], ["g-1"])


def test_of_two_dialects_the_standard_one_shows_and_the_other_remains() -> None:
    heard = Heard()
    heard.table.hear(node(version="go"))
    (go,) = heard.nodes.services("greeter")
    python = Service("greeter", "python", {"team": "blue"}, nodes=go.nodes)
    heard.nodes.claim("x._micro._tcp.local.", Rank.OWN_NAME, python)
    heard.nodes.claim(
        "manual._micro._tcp.local.", Rank.FREE_NAME, Service("greeter", "hand", nodes=go.nodes)
    )
    heard.table.hear(node(version="go", port=81))
    assert heard.nodes.services("greeter") == (python,)
    assert heard.kinds() == ["create", "update"]
    heard.nodes.unclaim("x._micro._tcp.local.", python)
    assert heard.nodes.services("greeter")[0].version == "go"
    heard.table.hear(node(version="go", port=81, ttl=0))
    assert heard.nodes.services("greeter")[0].version == "hand"
    assert heard.kinds() == ["create", "update", "update", "update"]


def test_nodes_whose_names_are_the_same_are_two(heard: Heard) -> None:
    one, other = node("a.b", service="c"), node("a", service="b.c")
    assert one.instance == other.instance
    for _ in range(2):
        heard.table.hear(one)
        heard.table.hear(other)
    assert (heard.ids("c"), heard.ids("b.c")) == (["a.b"], ["a"])
    heard.table.hear(other._replace(ttl=0))
    heard.table.hear(one)
    assert (heard.ids("c"), heard.ids("b.c")) == (["a.b"], [])
    assert heard.kinds() == ["create", "create", "delete"]


def test_a_known_text_is_not_decoded_again(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    decode = records.decode

    def count(seen: Seen, names: Names) -> object:
        decoded.append(seen)
        return decode(seen, names)

    monkeypatch.setattr(records, "decode", count)
    for _ in range(5):
        heard.table.hear(node("good"))
        heard.table.hear(node("bad")._replace(text=b"\x03bad"))
    assert len(decoded) == 2
    assert heard.skips.count == 1


def test_a_bad_record_neither_replaces_nor_ends_a_good_one(heard: Heard) -> None:
    heard.table.hear(node())
    for ttl in (120, 0):
        heard.table.hear(node(ttl=ttl)._replace(text=b"\x03bad"))
    assert heard.kinds() == ["create"]


def test_a_flood_makes_room_among_those_heard_once(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "NODE_LIMIT", 50)
    heard.table.hear(node("good"))
    heard.now += 2
    heard.table.hear(node("good"))
    for number in range(300):
        heard.table.hear(node(f"evil-{number}", service=f"evil-{number}"))
    heard.table.hear(node("newcomer"))
    assert len(heard.table) == 50
    assert heard.ids() == ["good", "newcomer"]


def test_all_records_together_have_a_memory_limit(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = records.decode(node(), NAMES).cost
    monkeypatch.setattr(tables, "MEMORY_LIMIT", 3 * one)
    for number in range(9):
        heard.table.hear(node(f"g-{number}"))
    assert heard.ids() == ["g-0", "g-1", "g-2"]
    heard.table.hear(node("g-0", version="2"))  # an update replaces what it updates
    heard.table.hear(node("g-0", version="2", ttl=0))
    heard.table.hear(node("g-8"))
    assert heard.ids() == ["g-1", "g-2", "g-8"]
