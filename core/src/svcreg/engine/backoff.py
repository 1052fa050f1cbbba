"""Delays between attempts: exponential, capped, with full jitter."""

from __future__ import annotations

import random
from collections.abc import Callable

BASE_DELAY = 0.1
"""Seconds of the first delay's upper end: long enough to spare a server that is restarting."""

MAX_DELAY = 5.0
"""Seconds. What comes back is noticed within this time, and asked at most so often while away."""


class Backoff:
    """Yields growing delays; full jitter keeps the clients of a recovering registry apart.

    Not thread-safe: each belongs to one task.
    """

    def __init__(
        self,
        base: float = BASE_DELAY,
        cap: float = MAX_DELAY,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._base = base
        self._cap = cap
        self._uniform = uniform
        self._attempt = 0

    def next(self) -> float:
        """Return the seconds to wait before the next attempt."""
        ceiling = min(self._cap, self._base * 2 ** min(self._attempt, 32))
        self._attempt += 1
        # Never below a tenth: a jitter near zero, several times over, would be a busy loop.
        return self._uniform(ceiling / 10, ceiling)

    def reset(self) -> None:
        """Start again from the shortest delay, after a success."""
        self._attempt = 0
