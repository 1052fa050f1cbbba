"""Retries go to other nodes, end in time, and are a share of the calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from svcreg import ConfigError
from svcreg.model import Node
from svcreg.selection import Attempts, RetryBudget, Selector
from svcreg.selection import attempts as module
from tests.support.engine import NAME, service


class First:
    """A strategy that would always ask the same node."""

    def pick(self, nodes: Sequence[Node], key: str | None) -> Node:
        return nodes[0]


def attempts(
    *node_ids: str, budget: RetryBudget | None = None, count: int = 3, timeout: float | None = None
) -> Attempts:
    known = (service(*node_ids),)
    selector = Selector(NAME, lambda _: known, lambda _: None, First())
    return Attempts(
        selector,
        budget or RetryBudget(),
        attempts=count,
        timeout=timeout,
        retry_on=(OSError,),
        key=None,
    )


def test_each_attempt_is_on_a_node_that_was_not_tried() -> None:
    plan = attempts("a", "b", "c")
    assert sorted(plan.next_node().id for _ in range(3)) == ["a", "b", "c"]


def test_single_node_is_tried_again() -> None:
    plan = attempts("a")
    assert [plan.next_node().id for _ in range(3)] == ["a", "a", "a"]


def test_last_attempt_is_not_followed_by_a_delay() -> None:
    plan = attempts("a", count=2)
    plan.next_node()
    assert plan.delay() is not None
    plan.next_node()
    assert plan.delay() is None


def test_delays_are_short_since_another_node_is_asked() -> None:
    plan = attempts("a", count=8)
    plan.next_node()
    delays: list[Any] = [plan.delay() for _ in range(6)]
    assert 0 < delays[0] <= module.RETRY_DELAY
    assert max(delays) <= module.RETRY_DELAY_MAX


def test_no_attempt_begins_after_the_deadline() -> None:
    plan = attempts("a", timeout=0.0001)
    plan.next_node()
    assert plan.delay() is None
    assert attempts("a", timeout=60.0).deadline is not None
    assert attempts("a").deadline is None


@pytest.mark.parametrize("count", [0, -1])
def test_attempts_are_at_least_one(count: int) -> None:
    with pytest.raises(ConfigError, match="attempts must be at least 1"):
        attempts("a", count=count)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_timeout_is_positive(timeout: float) -> None:
    with pytest.raises(ConfigError, match="timeout"):
        attempts("a", timeout=timeout)


def test_budget_lets_a_program_that_calls_seldom_retry() -> None:
    budget = RetryBudget()
    assert [budget.withdraw() for _ in range(12)] == [True] * 10 + [False] * 2


def test_retries_are_a_fifth_of_the_calls_in_the_long_run() -> None:
    budget, retries = RetryBudget(), 0
    for _ in range(1000):
        plan = attempts("a", "b", budget=budget, count=2)
        plan.next_node()
        retries += plan.delay() is not None  # every call fails and wants to retry
    assert 200 <= retries <= 210 + 1


def test_reserve_does_not_grow_without_bound() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.deposit()
    assert sum(budget.withdraw() for _ in range(100)) == 10
