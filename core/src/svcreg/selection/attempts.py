"""Calling with retries: which node next, after which delay, and when to give up."""

from __future__ import annotations

import threading
import time

from svcreg.config import parse_seconds
from svcreg.engine.backoff import Backoff
from svcreg.errors import ConfigError
from svcreg.model import Node
from svcreg.selection.selector import Selector

RETRY_SHARE = 0.2
"""Retries that each call adds to the budget: in the long run at most 20 % more load than calls."""

RETRY_RESERVE = 10.0
"""Retries that may be saved up, so that a program that calls seldom can retry at all."""

RETRY_DELAY = 0.025
"""Seconds of the first delay's upper end: another node is asked, so there is little to wait for."""

RETRY_DELAY_MAX = 1.0
"""Seconds of the longest delay."""


class RetryBudget:
    """Bounds retries to a share of the calls, so that they do not fell a struggling service."""

    def __init__(self) -> None:
        self._tokens = RETRY_RESERVE
        self._lock = threading.Lock()

    def deposit(self) -> None:
        """Count one call."""
        with self._lock:
            self._tokens = min(RETRY_RESERVE, self._tokens + RETRY_SHARE)

    def withdraw(self) -> bool:
        """Take one retry out of the budget; return whether there was one."""
        with self._lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


class Attempts:
    """The attempts of one call: at most so many, on different nodes, before a deadline."""

    def __init__(
        self,
        selector: Selector,
        budget: RetryBudget,
        *,
        attempts: int,
        timeout: float | None,
        retry_on: tuple[type[Exception], ...],
        key: str | None,
    ) -> None:
        if attempts < 1:
            raise ConfigError(f"attempts must be at least 1, not {attempts}")
        if timeout is not None:
            timeout = parse_seconds("timeout", timeout)
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.retry_on = retry_on
        self._selector = selector
        self._budget = budget
        self._left = attempts
        self._key = key
        self._tried: set[str] = set()
        self._backoff = Backoff(RETRY_DELAY, RETRY_DELAY_MAX)
        budget.deposit()

    def next_node(self) -> Node:
        """Return a node for the next attempt, one that was not tried if there is one."""
        self._left -= 1
        node = self._selector.pick(self._key, without=frozenset(self._tried))
        self._tried.add(node.id)
        return node

    def delay(self) -> float | None:
        """Return the seconds to wait before another attempt, or None to give up."""
        if self._left < 1:
            return None
        delay = self._backoff.next()
        if self.deadline is not None and time.monotonic() + delay >= self.deadline:
            return None
        return delay if self._budget.withdraw() else None
