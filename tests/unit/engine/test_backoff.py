"""Delays grow, stay below their cap and above a busy loop, and begin anew after a success."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from svcreg.engine.backoff import BASE_DELAY, MAX_DELAY, Backoff


def highest(low: float, high: float) -> float:
    return high


def lowest(low: float, high: float) -> float:
    return low


def test_upper_end_doubles_up_to_the_cap() -> None:
    backoff = Backoff(0.1, 1.0, uniform=highest)
    assert [backoff.next() for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_lower_end_is_a_tenth_so_that_no_jitter_makes_a_busy_loop() -> None:
    backoff = Backoff(0.1, 0.2, uniform=lowest)
    assert [round(backoff.next(), 6) for _ in range(3)] == [0.01, 0.02, 0.02]


def test_success_begins_with_the_shortest_delay_again() -> None:
    backoff = Backoff(0.1, 5.0, uniform=highest)
    first = backoff.next()
    assert backoff.next() > first
    backoff.reset()
    assert backoff.next() == first


@given(st.integers(0, 200))
def test_delays_stay_within_their_bounds_however_many(attempts: int) -> None:
    backoff = Backoff()
    for _ in range(attempts):
        backoff.next()
    assert BASE_DELAY / 10 <= backoff.next() <= MAX_DELAY


def test_clients_are_kept_apart_by_jitter() -> None:
    delays = {Backoff().next() for _ in range(20)}
    assert len(delays) > 15


def test_ten_thousand_attempts_do_not_overflow() -> None:
    backoff = Backoff(uniform=highest)
    assert [backoff.next() for _ in range(10_000)][-1] == MAX_DELAY
