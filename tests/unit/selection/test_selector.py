"""Strategies choose, selectors filter once per snapshot, and share their position by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from svcreg import ConfigError, NoNodeError
from svcreg.model import Node, Service
from svcreg.selection import Random, RoundRobin, Selector, Selectors, make_strategy, zone
from tests.support.engine import NAME, service

NODES = [Node(one, "h:1") for one in "abc"]


class Known:
    """What a registry knows, and how often it was asked to begin to watch."""

    def __init__(self, *services: Service) -> None:
        self.services: tuple[Service, ...] | None = services
        self.warmed: list[str] = []

    def selector(self, strategy: Any = None, filters: Sequence[Any] = ()) -> Selector:
        chosen = strategy or RoundRobin()
        return Selector(NAME, lambda _: self.services, self.warmed.append, chosen, filters)

    def selectors(self) -> Selectors:
        return Selectors(lambda _: self.services, self.warmed.append)


# Strategies.


def test_random_reaches_every_node_about_as_often() -> None:
    strategy = Random()
    counts = Counter(strategy.pick(NODES, None).id for _ in range(6000))
    assert set(counts) == {"a", "b", "c"}
    assert min(counts.values()) > 1700  # 2000 expected; 8 standard deviations below


def test_round_robin_takes_turns() -> None:
    strategy = RoundRobin()
    assert [strategy.pick(NODES, None).id for _ in range(7)] == list("abcabca")


def test_round_robin_is_fair_to_threads_together() -> None:
    strategy = RoundRobin()
    with ThreadPoolExecutor(4) as pool:
        picked = list(pool.map(lambda _: strategy.pick(NODES, None).id, range(3000)))
    assert Counter(picked) == {"a": 1000, "b": 1000, "c": 1000}


def test_strategy_is_a_name_or_an_object() -> None:
    assert isinstance(make_strategy("random"), Random)
    assert make_strategy("round_robin") is not make_strategy("round_robin")
    mine = RoundRobin()
    assert make_strategy(mine) is mine


def test_unknown_strategy_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no strategy 'best'; there are random, round_robin"):
        make_strategy("best")


# Selectors.


def test_picks_follow_what_is_known() -> None:
    known = Known(service("a", "b"))
    selector = known.selector()
    assert [selector.pick().id for _ in range(3)] == ["a", "b", "a"]
    known.services = (service("c", version="1"), service("d", version="2"))
    assert {selector.pick().id for _ in range(2)} == {"c", "d"}
    assert known.warmed == []


def test_filters_run_once_per_snapshot_not_per_pick() -> None:
    seen: list[Sequence[Service]] = []

    def watch(services: Sequence[Service]) -> Sequence[Service]:
        seen.append(services)
        return services

    known = Known(service("a"))
    selector = known.selector(filters=[watch])
    for _ in range(5):
        selector.pick()
    assert len(seen) == 1
    known.services = (service("b"),)
    assert selector.pick().id == "b"
    assert len(seen) == 2


def test_nothing_to_pick_says_whether_anything_is_registered() -> None:
    with pytest.raises(NoNodeError, match=r"no node of 'greeter' .*: none is registered"):
        Known().selector().pick()
    with pytest.raises(NoNodeError, match="all 2 are filtered out"):
        Known(service("a", "b", zone="z1")).selector(filters=[zone("z2")]).pick()


def test_nodes_to_avoid_are_avoided_while_there_are_others() -> None:
    selector = Known(service("a", "b")).selector()
    assert {selector.pick(without=frozenset("a")).id for _ in range(4)} == {"b"}
    assert {selector.pick(without=frozenset("ab")).id for _ in range(4)} == {"a", "b"}


def test_service_that_is_not_watched_any_more_is_picked_from_memory_and_watched_again() -> None:
    known = Known(service("a"))
    selector = known.selector()
    known.services = None  # before it has picked even once
    assert selector.pick().id == "a"
    assert known.warmed == [NAME]


def test_service_that_was_never_known_has_no_node_yet() -> None:
    known = Known()
    known.services = None
    with pytest.raises(NoNodeError, match="none is registered"):
        known.selector().pick()
    assert known.warmed == [NAME]


def test_key_reaches_the_strategy() -> None:
    class ByKey:
        def pick(self, nodes: Sequence[Node], key: str | None) -> Node:
            return next(node for node in nodes if node.id == key)

    selector = Known(service("a", "b")).selector(ByKey())
    assert selector.pick("b").id == "b"
    with selector.use("a") as node:
        assert node.id == "a"


def test_error_inside_use_is_the_callers() -> None:
    selector = Known(service("a")).selector()
    with pytest.raises(ZeroDivisionError), selector.use():
        raise ZeroDivisionError


# The selectors of one registry.


def test_calls_with_a_name_share_their_position_and_made_ones_have_their_own() -> None:
    selectors = Known(service("a", "b", "c")).selectors()
    assert [selectors.shared(NAME, "round_robin", ()).pick().id for _ in range(4)] == list("abca")
    assert selectors.make(NAME, "round_robin", ()).pick().id == "a"
    assert selectors.shared(NAME, "round_robin", ()).pick().id == "b"
    assert selectors.shared("other", "round_robin", ()).pick().id == "a"


def test_filters_do_not_break_the_shared_position() -> None:
    selectors = Known(service("a", "b", "c", zone="z1")).selectors()
    picked = [selectors.shared(NAME, "round_robin", [zone("z1")]).pick().id for _ in range(4)]
    assert picked == list("abca")
    with pytest.raises(NoNodeError):
        selectors.shared(NAME, "round_robin", [zone("z2")]).pick()
    assert selectors.shared(NAME, "round_robin", ()).pick().id == "b"


def test_strategy_of_ones_own_is_used_as_it_is() -> None:
    selectors, mine = Known(service("a", "b")).selectors(), RoundRobin()
    assert [selectors.shared(NAME, mine, ()).pick().id for _ in range(3)] == ["a", "b", "a"]


def test_default_strategy_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Known(service("a", "b"))
    monkeypatch.setenv("MICRO_SELECTOR", "round_robin")
    selectors = known.selectors()
    assert [selectors.shared(NAME, None, ()).pick().id for _ in range(3)] == ["a", "b", "a"]
    assert isinstance(selectors.make(NAME, "random", ())._strategy, Random)  # an argument wins
    monkeypatch.setenv("MICRO_SELECTOR", "")
    assert isinstance(known.selectors().make(NAME, None, ())._strategy, Random)


def test_unknown_strategy_of_the_environment_is_an_error_when_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MICRO_SELECTOR", "best")
    selectors = Known(service("a")).selectors()
    with pytest.raises(ConfigError, match="'best'"):
        selectors.shared(NAME, None, ())
    assert selectors.shared(NAME, "random", ()).pick().id == "a"
